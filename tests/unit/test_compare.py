"""Two runs are held against each other: what differs, and whether a verdict has turned over."""

import dataclasses
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from regdpo.core.errors import UserError
from regdpo.report import compare, contents, document, gather

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def first(inputs):
    return contents.shape(inputs, {"train": "0" * 16, "clips": "1" * 16})


@pytest.fixture(scope="module")
def second(inputs, first):
    """dpo and reg_dpo have changed places in PSNR, sft has no SSIM, and the rest as it would be on another machine."""
    names = {"dpo": "reg_dpo", "reg_dpo": "dpo"}

    def changed(row):
        arm, _, seed = row.model.partition("/")
        if row.metric == "psnr" and arm in names:
            return row.model_copy(update={"model": f"{names[arm]}/{seed}"})
        if row.metric == "ssim" and arm == "sft":
            return row.model_copy(update={"value": None, "missing": "no videos"})
        return row

    rows = [changed(row) for row in inputs.scores]
    found = contents.shape(gather.Inputs(**(vars(inputs) | {"scores": rows})), {"train": "2" * 16, "clips": "1" * 16})
    values = dict(found.configuration)
    values["pairs"] = values["pairs"] | {"test": 0.25}
    clips = contents.Manifest("e" * 64, found.manifests["clips"].rows + 3)
    models = [dataclasses.replace(it, machine="AMD EPYC") if it.arm == "sft" else it for it in found.models]
    return dataclasses.replace(
        found,
        configuration=values,
        manifests=found.manifests | {"clips": clips},
        models=models,
        packages={**found.packages, "numpy": "9.9"},
    )


def test_a_run_agrees_with_itself(first):
    found = compare.compare(first, first, ("a", "b"))
    assert found.counts == {"turned over": 0, "undecided in one": 0, "undecided in both": 0, "agree": len(found.rows)}
    assert not found.turned_over
    assert not any(found.differences.values())
    assert all(found.same.values())
    assert {it.partition(" of ")[0] for it in found.neither} >= {"People's VQ", "People's PF"}
    assert not [row for row in found.rows if row.first == "not measured"]


def test_what_differs_is_told(first, second):
    found = compare.compare(first, second, ("a", "b"))
    told = {what: [(it.what, it.first, it.second) for it in those] for what, those in found.differences.items()}
    rows = first.manifests["clips"].rows
    digest = first.manifests["clips"].sha256[:12]
    assert told["configuration"] == [("pairs.test", "0.2", "0.25")]
    assert told["data"] == [("clips", f"{rows} rows {digest}", f"{rows + 3} rows {'e' * 12}")]
    assert told["code"] == [("numpy", "2.4.6", "9.9"), ("code of train", "0" * 16, "2" * 16)]
    assert told["hardware"] == [
        (f"sft/seed{seed}", "2 on cpu, attention sdpa", "2 on AMD EPYC, attention sdpa") for seed in (0, 1)
    ]
    assert told["models"] == []


def test_verdicts_that_turned_over_are_told_from_undecided_ones(first, second, tmp_path):
    found = compare.compare(first, second, ("a", "b"))
    rows = {(row.arm, row.measure): row for row in found.rows}
    assert rows["dpo", "PSNR"].outcome == rows["reg_dpo", "PSNR"].outcome == "turned over"
    assert (rows["dpo", "PSNR"].first, rows["dpo", "PSNR"].second) == ("worse", "better")
    assert rows["dpo", "PSNR"].apart
    assert rows["dpo", "PSNR"].first_interval.endswith(", n 6")
    assert (rows["sft", "SSIM"].first, rows["sft", "SSIM"].second) == ("no difference seen", "not measured")
    assert (rows["sft", "SSIM"].outcome, rows["sft", "SSIM"].second_interval) == ("undecided in both", "(no videos)")
    assert rows["sft", "PSNR"].outcome == rows["dpo", "Held-out error"].outcome == "agree"
    assert found.turned_over
    compare.write(found, tmp_path / "page.html")
    page, text = unescape((tmp_path / "page.html").read_text()), compare.text(found)
    for row in found.rows:
        assert row.first_interval in page
        assert row.first_interval in text
    assert text.endswith(found.summary)
    assert "https://" not in page


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("better", "better", "agree"),
        ("better", "worse", "turned over"),
        ("closer to real", "further from real", "turned over"),
        ("better", "no difference seen", "undecided in one"),
        ("mixed", "worse", "undecided in one"),
        ("no difference seen", "no difference seen", "agree"),
        ("too little to say", "no difference seen", "undecided in both"),
    ],
)
def test_outcomes(one, other, expected):
    assert compare.outcome(one, other) == compare.outcome(other, one) == expected


def test_runs_without_a_common_arm_are_refused(first):
    table = {key: row for key, row in first.table.items() if key != "sft"}
    other = dataclasses.replace(first, verdicts=first.verdicts[1:], table=table)
    found = compare.compare(first, other, ("a", "b"))
    assert found.alone == ["sft (in a)"]
    assert {row.arm for row in found.rows} == {"dpo", "reg_dpo"}
    none = dataclasses.replace(first, verdicts=first.verdicts[:1], table={"sft": first.table["sft"]})
    with pytest.raises(UserError, match=r"no arm in common.*a: sft; b: dpo, reg_dpo"):
        compare.compare(none, other, ("a", "b"))


def test_the_exit_code_says_what_came_out(first, second, tmp_path):
    for name, content in (("a", first), ("b", second)):
        (tmp_path / name / "report").mkdir(parents=True)
        document.write(content, tmp_path / name / "report/report.json")

    def ran(*arguments):
        command = [sys.executable, "scripts/compare.py", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, said = ran(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "page.html")
    assert code == 1
    assert "TURNED OVER" in said
    assert (tmp_path / "page.html").exists()
    code, said = ran(tmp_path / "a/report/report.json", tmp_path / "none")
    assert code == 2
    assert said.startswith(f"error: {tmp_path}/none: cannot be read")
