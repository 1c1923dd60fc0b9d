"""What is declared once is picked up whole: a toy objective, measure and filter of clips, each of one declaration."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from regdpo.config import schema
from regdpo.core import code_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, SampleRow, ScoreRow
from regdpo.core.store import Store
from regdpo.data import filters
from regdpo.data.registry import FILTERS, Filter
from regdpo.evaluate.measures import MEASURES, Given, Measure, Metric, metrics
from regdpo.objectives.registry import OBJECTIVES
from regdpo.report.results import Scores
from regdpo.stages import scores


def test_an_objective_and_a_filter_are_keys_of_the_configuration():
    """Declared before the configuration is read; its schema and its documents have them too."""
    code = """
        from regdpo.core.section import Fraction, Positive
        from regdpo.data.registry import FILTERS, Filter
        from regdpo.objectives.registry import OBJECTIVES, Objective, Term

        OBJECTIVES["toy"] = Objective("toys:loss", "a toy", {"zeal": Term(Positive, "how much")})
        FILTERS["dull"] = Filter(
            score="dullness", function="toys:dullness", key="max_dullness", bound="greatest", default=0.7,
            kind=Fraction, description="Greatest dullness; above: dull.", says="{score:.1f} is above {limit:g}",
        )
        from regdpo.config import documents, schema
        from regdpo.config.training import Arm
        from regdpo.core.errors import UserError

        assert Arm(objective="toy", zeal=2).given() == {"zeal": 2}
        for wrong, message in (({}, "takes ['zeal']"), ({"zeal": -1}, "greater than 0"), ({"zeal": 1, "beta": 1}, "takes")):
            try:
                Arm(objective="toy", **wrong)
            except ValueError as error:
                assert message in str(error), error
            else:
                raise AssertionError(wrong)
        assert schema.Clips().filters.max_dullness == 0.7
        text = documents.markdown()
        assert "max_dullness" in text and "toy: how much" in text
        assert "toy" in documents.json_schema()["$defs"]["Step"]["properties"]["objective"]["enum"]
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def length(given: Given) -> list[ScoreRow]:
    return [
        ScoreRow(
            score_id=sample.sample_id,
            model=sample.model,
            metric="length",
            clip_id=sample.clip_id,
            seed=sample.seed,
            value=float(len(sample.clip_id)),
        )
        for sample in given.samples
    ]


LENGTH = Metric("length", "Length", "letters", 1, 0, "of the clip's name")


def sample(name: str) -> SampleRow:
    rest = {"steps": 1, "guidance": 1.0, "shift": None, "path": "", "sha256": "", "real": "", "real_sha256": ""}
    return SampleRow(sample_id=name, model="base", clip_id=name, seed=0, **rest)


def inputs(rows):
    """Of the page, as far as scores go."""
    config = SimpleNamespace(scores=schema.Scores(bootstrap={"resamples": 10}), report=schema.Report())
    clips = {
        row.clip_id: ClipRow(clip_id=row.clip_id, status="accepted", source=row.clip_id, source_digest="")
        for row in rows
    }
    return SimpleNamespace(scores=rows, config=config, clips=clips, bases={"base": None})


def test_a_measure_is_scored_and_shown(monkeypatch, tmp_path):
    monkeypatch.setitem(MEASURES, "toy", Measure(f"{__name__}:length", (LENGTH,)))
    rows = scores.score("toy", Given(Store(tmp_path), "cpu", samples=(sample("cat"), sample("mouse"))))
    assert metrics()["length"] is LENGTH
    cell = Scores(inputs(rows)).cell(["base"], LENGTH)
    assert cell.mean.mean == 4.0


def test_a_metric_that_is_not_declared_is_an_error(monkeypatch, tmp_path):
    given = Given(Store(tmp_path), "cpu", samples=(sample("cat"),))
    monkeypatch.setitem(MEASURES, "toy", Measure(f"{__name__}:length", ()))
    with pytest.raises(UserError, match="measure toy: makes length, and declares"):
        scores.score("toy", given)
    with pytest.raises(UserError, match="no measure declares length"):
        Scores(inputs(length(given)))
    with pytest.raises(UserError, match="there is no such measure"):
        scores.score("none", given)


def brightest(look: filters.Look) -> float:
    return float(max(luma.max() for luma in look.lumas))


def test_a_filter_scores_and_rejects(monkeypatch):
    toy = Filter(
        "brightest", f"{__name__}:brightest", "max_brightest", "greatest", 250.0, float, "", "{score:g} > {limit:g}"
    )
    lenient = {it.key: -np.inf if it.bound == "least" else np.inf for it in FILTERS.values()}
    limits = SimpleNamespace(**lenient, max_brightest=200.0)
    monkeypatch.setitem(FILTERS, "glaring", toy)
    lumas = np.full((3, 8, 8), 40, np.uint8)
    found = filters.scores(filters.Look(lumas))
    assert found["brightest"] == 40
    assert filters.reject_reason(found, limits) == ""
    lumas[1] = 255
    assert filters.reject_reason(filters.scores(filters.Look(lumas)), limits) == "glaring: 255 > 200"


def test_what_is_declared_is_there():
    """Every function that a declaration names, by a digest of its code, which the rules ask for."""
    named = [objective.function for objective in OBJECTIVES.values()]
    named += [measure.module for measure in MEASURES.values()] + [it.module for it in FILTERS.values()]
    assert all(code_digest.code_digest(entry) for entry in named)
    assert all(callable(it.measure()) for it in FILTERS.values())
    assert len(metrics()) == sum(len(measure.metrics) for measure in MEASURES.values())


def test_rules_that_ask_for_a_gpu_wait_where_there_are_some():
    """``cut_clips`` alone asks for one by the configuration, where its filters have weights."""
    root = Path(__file__).parents[2]
    rules = re.split(r"^ *rule (?=\w+:)", "\n".join(it.read_text() for it in root.glob("rules/*.smk")), flags=re.M)[1:]
    asking = {rule.partition(":")[0] for rule in rules if re.search(r"^ *gpu=(?!0,)", rule, flags=re.M)}
    profile = yaml.safe_load((root / "profiles/slurm/profile.v9+.yaml").read_text())
    placed = {name for name, it in profile["set-resources"].items() if "gpu" in it["slurm_partition"]}
    assert asking - {"cut_clips"} == placed
