"""The page says what the numbers say, loads nothing, and is the same every time."""

import base64
import dataclasses
import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import jsonschema
import pytest
import report_inputs
from pydantic import TypeAdapter
from report_inputs import EVIL, NO_VBENCH

from regdpo.config import schema
from regdpo.config.training import Arm
from regdpo.core import manifests, portable
from regdpo.core.errors import UserError
from regdpo.core.rows import ClipRow, Geometry, HalfRow, ImportedRow, PairRow
from regdpo.data.video import read_frames
from regdpo.evaluate import stats
from regdpo.evaluate.measures import columns, metrics
from regdpo.evaluate.people import NOBODY
from regdpo.evaluate.stats import Interval
from regdpo.models.spec import ModelFile
from regdpo.objectives.registry import OBJECTIVES
from regdpo.report import (
    contents,
    document,
    examples,
    figures,
    footage,
    gather,
    losers,
    page,
    pair_weights,
    people,
    totals,
    videos,
)
from regdpo.report.halves import differences
from regdpo.report.results import Scores, table, word
from regdpo.report.verdicts import summary, verdicts
from regdpo.runs.job import RAN, Ran

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def html(inputs):
    return rendered(inputs)


def rendered(inputs):
    return page.render(contents.shape(inputs), inputs.store)


class Elements(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, tag, name=None):
        return [attributes for found, attributes in self.tags if found == tag and (name is None or name in attributes)]


def cards(html):
    """Arm -> the words of its card, tags removed."""
    found = re.findall(r'<article class="card".*?</article>', html, re.S)
    texts = [" ".join(unescape(re.sub(r"<[^>]+>", " ", card.replace("<wbr>", ""))).split()) for card in found]
    return {text.split()[0]: text for text in texts}


def rescored(inputs, change):
    rows = [row.model_copy(update=change(row) or {}) for row in inputs.scores]
    return gather.Inputs(**(vars(inputs) | {"scores": rows}))


ARMS = {
    "sft": {"objective": "sft"},
    "dpo": {"objective": "dpo", "beta": 50},
    "reg_dpo": {"objective": "reg_dpo", "beta": 50, "r": "dgr"},
}
"""Those of the inputs."""


def recast(inputs, arms, **roles):
    """The inputs with other arms, which those that there are play."""

    def renamed(model):
        arm, _, seed = model.partition("/")
        return f"{roles.get(arm, arm)}/{seed}" if seed else model

    values = inputs.shown_config | {"train": inputs.shown_config["train"] | {"arms": arms}}
    config, runs = schema.check(values), []
    for run in inputs.runs:
        name = renamed(run.model.name)
        arm = name.partition("/")[0]
        told = {"name": name, "arm": arm, "objective": config.train.links[arm].step.objective}
        runs.append(replace(run, model=run.model.model_copy(update=told)))
    rows = {
        table: [row.model_copy(update={"model": renamed(row.model)}) for row in getattr(inputs, table)]
        for table in ("scores", "samples")
    }
    return replace(inputs, config=config, shown_config=values, runs=runs, **rows)


def judged(inputs):
    scores = Scores(inputs)
    return verdicts(inputs, scores, table(inputs, scores))


def test_an_arm_is_told_by_every_term_that_it_declares():
    for name, declared in OBJECTIVES.items():
        if not declared.configurable:
            continue
        values = {
            term: 0.25 + number / 8 for number, term in enumerate(declared.terms) if term not in ("r_scale", "sft")
        }
        said = page.objective(Arm.model_validate({"objective": name, **values}))
        assert said.split(" · ") == [name, *(f"{'β' if t == 'beta' else t} {v:g}" for t, v in values.items())]
    assert page.objective(Arm(objective="reg_dpo", beta=50, r="dgr")) == "reg_dpo · β 50 · r = DGR"
    for r, said in (("dgr", "SFT r = DGR"), (2.5, "SFT r 2.5")):
        assert page.objective(Arm(objective="ipo", beta=50, sft={"r": r})) == f"ipo · β 50 · {said}"


def test_same_inputs_same_bytes_and_no_video_is_opened(made, html, tmp_path):
    """A process draws the page that could not decode a video, let alone load a model."""
    out = tmp_path / "index.html"
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-X", "importtime", "scripts/report.py", *report_inputs.arguments(made, out)]
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    assert out.read_text(encoding="utf-8") == html
    content = document.read(out.with_name("report.json"))
    assert page.render(content, made.store) == html  # nothing is on the page but what is in the file, and videos
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"matplotlib.figure", "scipy.special"} <= loaded
    assert not loaded & {"av", "cv2", "ffmpeg", "imageio_ffmpeg", "skimage", "torch", "matplotlib.pyplot"}


def test_the_content_has_a_documented_schema(inputs, tmp_path):
    schema = json.loads((ROOT / "docs/reference/report.schema.json").read_text())
    assert schema == document.json_schema(), "run `python scripts/config_docs.py`"
    objects = [schema, *schema["$defs"].values()]
    fields = [(part["title"], name, field) for part in objects for name, field in part["properties"].items()]
    assert not [(title, name) for title, name, field in fields if "description" not in field and "$ref" not in field]
    shaped = contents.shape(inputs)
    for name in ("once", "twice"):
        document.write(shaped, tmp_path / name)
    text = (tmp_path / "once").read_text()
    assert (tmp_path / "twice").read_text() == text
    jsonschema.validate(json.loads(text), schema)
    assert document.read(tmp_path / "once") == shaped
    (tmp_path / "other").write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(UserError, match=r"other: is not a report of version 1 of the schema .*schema_version"):
        document.read(tmp_path / "other")


def test_reports_of_before_can_be_read():
    """What a version of the schema requires stays: a new field has a default, or the version goes up."""
    asked = json.loads((ROOT / "tests/golden/report_fields.json").read_text())
    assert asked["version"] == contents.VERSION
    schema = TypeAdapter(contents.Contents).json_schema(mode="validation")
    now = {"Contents": schema} | schema["$defs"]
    added = {name: set(now[name].get("required", ())) - set(there) for name, there in asked["required"].items()}
    assert not {name: fields for name, fields in added.items() if fields}


def test_the_page_names_the_hardware_where_numbers_are_not_portable(inputs, html):
    assert "Numbers are portable: made so that every x86-64 machine with AVX2 gives the same bits." in html
    first, *others = inputs.runs
    trained = first.model.model_copy(update={"hardware": "NVIDIA H100 80GB HBM3"})
    base = inputs.base.model_copy(update={"hardware": "AMD EPYC (AuthenticAMD 25 1)"})
    shaped = contents.shape(replace(inputs, bases={"base": base}, runs=[replace(first, model=trained), *others]))
    assert "hold for AMD EPYC (AuthenticAMD 25 1) and NVIDIA H100 80GB HBM3; others round" in shaped.numbers


def test_the_machine_of_each_training_is_in_the_report(made):
    """From what its ranks wrote down; a run of an earlier version has none."""
    models = [ModelFile.read(path) for path in made.files.models]
    arm = next(model for model in models if model.arm == "sft")
    ran = made.store.existing(arm.run) / RAN
    ran.write_text(Ran(device="cpu", machine=portable.processor(), attention="native", places=[]).model_dump_json())
    try:
        shaped = contents.shape(gather.gather(made.values, made.store, made.files))
    finally:
        ran.unlink()
    machines = {model.name: model.machine for model in shaped.models}
    assert {name for name, machine in machines.items() if machine} == {arm.name}
    assert portable.processor() in page.render(shaped, made.store)


def test_it_says_how_to_load_each_arm(html, inputs):
    for arm in inputs.arms:
        assert f"AutoModel.from_pretrained(&#34;weights/{arm}/seed0&#34;, " in html


def test_captions_are_escaped(html):
    assert EVIL not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<script>") == 1


def test_loads_nothing_but_its_neighbour(html):
    """The timeline, which has a clock in it, is a page of its own and may not be there."""
    assert "http://" not in html
    assert "https://" not in html
    elements = Elements(html)
    assert not [a for tag in ("link", "img", "iframe", "embed") for a in elements.all(tag)]
    assert [a["data"] for a in elements.all("object")] == ["timeline.html"]
    assert re.search(r"<object [^>]*><p>It is not shown here because .*</p></object>", html)
    sources = [
        a[name] for _, a in elements.tags for name in ("src", "href", "xlink:href", "poster", "action") if a.get(name)
    ]
    assert {source.partition(":")[0] for source in sources if source[0] != "#"} == {
        "data",
        "timeline.html",
        "../clips.html",
    }
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html


def test_ids_are_unique_and_links_lead_somewhere(html):
    elements = Elements(html)
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in elements.all("a", "href") if a["href"] not in ("timeline.html", "../clips.html")]
    targets += re.findall(r'(?:url\(|xlink:href=")#([^)"]+)', html)
    assert targets
    assert set(targets) <= set(ids)


def test_no_places_and_no_clock(html, made):
    assert re.search(r"root\W{1,20}…", html)  # where footage lies
    assert "/somewhere" not in html
    assert str(made.root) not in html
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", html)
    told = gather.without_folders("ffmpeg: /data/in here/x: no; /a/b/c.mp4 and ratio 3/4")
    assert told == "ffmpeg: …/in here/x: no; …/c.mp4 and ratio 3/4"


def test_every_missing_cell_has_its_reason(html):
    cells = [a["title"] for a in Elements(html).all("abbr", "title")]
    assert len(cells) == html.count('class="missing"') == 17  # dpo's flickering, six that footage has none of,
    # and in ten cells of the table what people were not asked
    assert all(cells)
    assert {NO_VBENCH, NOBODY} <= {*cells}
    footnotes = re.findall(r'<li id="reason\d+">(.*?)</li>', html)
    assert {"VBench is not installed: run `make vbench`", "the video could not be read"} <= set(footnotes)
    assert "1 missing" in html
    assert "1 of 16" in html
    assert html.count(f"missing</i>: {people.NOBODY}") == 1  # of all that people could be asked
    assert not any("People" in text for text in cards(html).values())
    assert "people&#39;s VQ (video quality)" in html[html.index('id="missing"') :]


def test_all_missing_says_so(inputs):
    nothing = rescored(inputs, lambda row: {"value": None, "missing": "no weights"})
    html = rendered(nothing)
    assert all("not measured" in text and "missing" in text for text in cards(html).values())
    assert "0 of 16" in html
    assert "3 not measured" in html


def test_verdicts_follow_the_numbers(html, inputs):
    found = cards(html)
    sign = f"[+{page.MINUS}]"
    ends = rf"\[{sign}0\.\d+, {sign}0\.\d+\] \(95 % interval, n = 6 clips , p < \.001\)\."
    assert re.search(rf"sft is better than the base model by Held-out error: {page.MINUS}0\.142 {ends}", found["sft"])
    assert re.search(rf"dpo is worse than the base model by Held-out error: \+0\.066 {ends}", found["dpo"])
    assert re.search(r"Held-out error 0\.628 \[0\.\d+, 0\.\d+\] against 0\.769 \[.*?\] of base", found["reg_dpo"])

    def swap(row):
        other = {"dpo/seed0": "reg_dpo/seed0", "dpo/seed1": "reg_dpo/seed1"}
        other |= {new: old for old, new in other.items()}
        return {"model": other.get(row.model, row.model)}

    swapped = cards(rendered(rescored(inputs, swap)))
    assert "dpo is better than the base model" in swapped["dpo"]
    assert "reg_dpo is worse than the base model" in swapped["reg_dpo"]
    assert "no gain over base is told" in swapped["reg_dpo"]


def test_equal_arms_do_not_differ(inputs):
    base = {(r.metric, r.clip_id): r.value for r in inputs.scores if r.model == "base"}
    same = rescored(inputs, lambda row: {"value": base[row.metric, row.clip_id]} if row.model != "real" else None)
    assert {verdict.word for verdict in judged(same)} == {"no difference seen"}
    assert all(
        "is not distinguishable from the base model by Held-out error" in it for it in cards(rendered(same)).values()
    )


def test_one_clip_is_too_little_to_say(inputs):
    one = rescored(inputs, lambda row: {"value": None, "missing": "left out"} if row.clip_id != "clip008" else None)
    assert {verdict.word for verdict in judged(one)} == {"too little to say"}
    assert page.span(judged(one)[0].base.mean, 3) == "no interval: one clip"


def configured(inputs, **sections):
    config = inputs.config.model_copy(update=sections)
    shown = inputs.shown_config | {key: section.model_dump(mode="json") for key, section in sections.items()}
    return gather.Inputs(**(vars(inputs) | {"config": config, "shown_config": shown}))


def test_a_word_needs_the_minimum_of_evidence(inputs):
    few = configured(inputs, report=inputs.config.report.model_copy(update={"minimum": schema.Minimum()}))
    html = rendered(few)
    for text in cards(html).values():
        told = r"too little to say about \w+ : there is 1 source where 3 are asked for, 5 stretches where 10 are"
        assert re.search(told, text)
        assert not re.search(
            "better|worse|closer|further|no difference", text.partition("No drift")[0].partition("Drifts")[0]
        )
    assert "3 about which there is too little to say" in html
    assert "Whether SFT alone explains this cannot be told." in html
    one_seed = schema.Minimum(sources=1, clips=1, seeds=3)
    few = configured(inputs, report=inputs.config.report.model_copy(update={"minimum": one_seed}))
    assert judged(few)[0].primary.short == ("2 trainings where 3 are asked for",)


def test_measures_that_disagree_are_mixed(inputs):
    def change(row):
        lower = row.metric == "psnr" and row.model.startswith("sft")
        return {"value": row.value - 5} if lower else None

    found = {verdict.arm: verdict for verdict in judged(rescored(inputs, change))}
    assert found["sft"].word == "mixed"
    assert found["sft"].primary.reading == "better"
    assert {verdict.arm: verdict.word for verdict in judged(inputs)} == {
        "sft": "better",
        "dpo": "worse",
        "reg_dpo": "better",
    }


def test_a_model_of_captions_is_not_held_to_a_continuation(inputs, html):
    told = "the same caption, first frame and sampling seed for every model"
    assert told in html
    text = rendered(configured(inputs, base=inputs.config.base.model_copy(update={"task": "t2v"})))
    assert told not in text
    assert "the same caption and sampling seed for every model" in text
    shown = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert set(re.findall(r"PSNR|SSIM|first frame", shown)) == {"PSNR", "SSIM"}
    assert shown.count("PSNR") == shown.count("which a model of captions alone is never asked for") - 1 == 1
    assert all("than the base model" in card for card in cards(text).values())


def test_hashes_are_out_of_the_way(html):
    plain = re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)
    assert not re.search(r"\b[0-9a-f]{64}\b", re.sub(r'"data:[^"]*"', "", plain))
    assert len(re.findall(r"\b[0-9a-f]{64}\b", re.sub(r'"data:[^"]*"', "", html))) > 10


def test_the_page_counts_pairs_and_the_rows_of_manifests(html, inputs):
    assert f'>pairs<br><small class="muted">{len(inputs.pairs)} rows</small>' in html
    assert re.search(r"train: 6 pairs, 6 clips, 1 videos; validation: 2 pairs, 2 clips, 1 videos; test: 6 pairs", html)


def test_the_page_explains_its_words(html):
    assert re.findall(r"<dt>(.*?)</dt>", html)[:6] == ["SFT", "DPO", "Reg-DPO", "beta (β)", "DGR", "r"]


def test_ranks_and_normalised_scores(inputs, html):
    """By hand, of the means: errors .627, .835 and .628 against .769 of base; PSNR 19.99, 18.03, 19.86 and 19.01."""
    cells = table(inputs, Scores(inputs))
    found = totals.totals(cells)
    by = {name: row.points for name, row in found.rows.items()}
    assert [by[name]["held_out_error"] for name in ("base", "sft", "dpo", "reg_dpo")] == [2, 4, 1, 3]
    assert [by[name]["psnr"] for name in ("base", "sft", "dpo", "reg_dpo")] == [2, 4, 1, 3]
    assert by["dpo"]["motion"] == 1  # 6.9 where the footage has 4.2, and base 3.0
    assert all(row.total == sum(row.points.values()) for row in found.rows.values())
    mean = {name: cells[name]["psnr"].mean.mean for name in found.rows}
    expected = (mean["base"] - mean["dpo"]) / (mean["sft"] - mean["dpo"])
    assert found.rows["base"].normalised["psnr"] == pytest.approx(expected)
    assert found.left_out["vbench_temporal_flickering"] == "missing for dpo"
    assert "Flickering (missing for dpo)" in html
    assert re.search(r"<th scope=.row.>Rank total.*<b>\d+</b>", html)
    figure = re.search(r'<figure class="panel">(<svg[^>]*aria-label="Normalised.*?</svg>)', html, re.S)[1]
    assert [it for it in ("Held-out error", "PSNR", "Motion") if it not in figure] == []


def test_a_radar_of_many_measures_has_numbers_for_names(inputs, monkeypatch):
    monkeypatch.setattr(figures, "FEW", 4)
    html = rendered(inputs)
    figure = re.search(r'<figure class="panel">(<svg[^>]*aria-label="Normalised.*?</svg>)', html, re.S)[1]
    texts = [re.sub("<[^>]+>", "", it).strip() for it in re.findall(r"<text.*?</text>", figure, re.S)]
    assert [it for it in texts if it] == ["1", "2", "3", "4", "5", "6", "7"]
    assert '<th scope="row">7 · ' in html


def test_every_measure_has_its_differences_drawn(html, inputs):
    """Of a measure without direction those of the distance to real footage; none of what was not compared."""
    cells = table(inputs, Scores(inputs))
    compared = [key for key in cells["sft"] if any(cells[arm][key].against for arm in ("sft", "dpo", "reg_dpo"))]
    drawn = re.findall(r'id="forest-(\w+?)-figure_1"', html)
    assert drawn == compared
    assert {"motion", "sharpness"} <= set(drawn)
    assert not {"people_vq", "frechet_bias"} & set(drawn)
    assert html.count("of the distance to real; left of 0 is closer") == sum(
        not cells["sft"][key].metric.better for key in compared
    )

    def measured(row):
        return {"value": 0.9 if row.model.startswith("dpo") else 0.95} if row.metric.startswith("vbench_") else None

    found = totals.totals(table(rescored(inputs, measured), Scores(rescored(inputs, measured))))
    assert found.rows["dpo"].normalised["vbench_temporal_flickering"] == pytest.approx((0.9 - 0.6293) / (1 - 0.6293))
    nothing = totals.totals(table(one := rescored(inputs, lambda row: {"value": None, "missing": "-"}), Scores(one)))
    assert (nothing.metrics, nothing.rows) == ([], {})


BACKGROUNDS = ("paper", "card", "soft")
OWN = {"good": "good-bg", "bad": "bad-bg", "warn": "warn-bg"}
LINES = {"line", "shade"}
"""Rules between rows, and shadows: they tell nothing."""


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    """WCAG's ratio, 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_pair_of_colours_can_be_read(scheme):
    """At 4.5:1 (WCAG 2.2, AA for text): every colour on all that it may lie on, lines and dots of arms too. Dark is for
    screens: paper is white."""
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    light, _, rest = (
        (ROOT / "regdpo/report/style.css").read_text().partition("@media screen and (prefers-color-scheme: dark)")
    )
    declared = {"light": light, "dark": rest.partition("* {")[0]}[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", declared))
    inks = set(colours) - {*BACKGROUNDS, *OWN.values()} - LINES
    assert {"ink", "muted", "accent", "base", *OWN, *(f"arm{index}" for index in range(figures.PALETTE))} <= inks
    pairs = [(ink, under) for ink in inks for under in (*BACKGROUNDS, *filter(None, [OWN.get(ink)]))]
    pairs.append(("ink", "line"))
    low = {pair: ratio for pair in pairs if (ratio := contrast(*(colours[name] for name in pair))) < 4.5}
    assert not low


def test_not_finite_is_missing_not_averaged(inputs):
    lost = rescored(
        inputs, lambda r: {"value": float("inf")} if (r.model, r.clip_id) == ("sft/seed0", "clip008") else None
    )
    cell = Scores(lost).cell(["sft/seed0"], metrics()["psnr"])
    assert (cell.lost, cell.reasons, cell.mean.n) == (1, ("not a finite number",), 5)
    assert "1 value is missing and not in the mean: not a finite number" in cards(rendered(lost))["sft"]


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("held_out_error", -0.2, -0.1, "better"),
        ("held_out_error", 0.1, 0.2, "worse"),
        ("psnr", 0.1, 0.2, "better"),
        ("psnr", -0.2, -0.1, "worse"),
        ("ssim", -0.1, 0.1, "no difference seen"),
        ("ssim", None, None, "no verdict"),
    ],
)
def test_words(metric, low, high, expected):
    assert word(metrics()[metric], Interval(0.15, low, high, 9)) == expected


def test_a_word_needs_a_p_that_holds_among_all_comparisons(inputs, html):
    """One of many differences that alone is told apart from zero."""
    base = {(r.metric, r.clip_id): r.value for r in inputs.scores if r.model == "base"}

    def change(row):
        if row.model in ("real", "base") or row.value is None:
            return None
        wobble = ((hash_of(row.clip_id) + row.seed) % 7 - 3) * 1e-3
        shift = 2.2e-3 if (row.model.split("/")[0], row.metric) == ("sft", "psnr") else 0
        return {"value": base[row.metric, row.clip_id] + wobble + shift}

    scores = Scores(rescored(inputs, change))
    cells = table(rescored(inputs, change), scores)
    cell = cells["sft"]["psnr"]
    compared = [c for arm in ("sft", "dpo", "reg_dpo") for c in cells[arm].values() if c.p is not None]
    assert cell.delta.sign == 1
    assert cell.delta.p < 0.05 < cell.p
    assert (cell.told, cell.reading, cell.lone) == (False, "no difference seen", True)
    assert [c.p for c in compared] == stats.holm([c.against.p for c in compared])
    assert f"Holm's correction over {len(compared)} comparisons" in html.replace("&#39;", "'")


def hash_of(text):
    return sum(ord(letter) ** 2 for letter in text)


def test_the_page_leads_with_the_declared_measure(inputs, html):
    """And the error that SFT minimises stands beside it."""
    assert "It is what SFT minimises" in html
    scores = inputs.config.scores.model_copy(update={"primary": "psnr"})
    other = configured(inputs, scores=scores)
    html = rendered(other)
    assert "<b>PSNR</b>: to the real continuation, higher is better" in html
    assert "Held-out error stands beside it" in html
    assert re.findall(r'aria-label="([^:"]*): difference of each arm', html)[:2] == ["PSNR", "Held-out error"]
    assert re.search(r"<th>Model</th><th>PSNR\s↑", html)
    sft = cards(html)["sft"]
    assert re.search(r"sft is better than the base model by PSNR: .* PSNR 19\.\d\d \[.*? against 19\.\d\d \[", sft)
    assert sft.index("PSNR") < sft.index("Held-out error better")

    def worse(row):
        return {"value": row.value - 5} if row.metric == "psnr" and row.model.startswith("sft") else None

    assert judged(rescored(other, worse))[0].primary.reading == "worse"


@pytest.mark.parametrize(("primary", "task"), [("motion", "i2v"), ("psnr", "t2v"), ("beauty", "i2v")])
def test_a_primary_measure_that_is_none_is_refused(inputs, primary, task):
    with pytest.raises(UserError, match=f"^scores.primary: {primary} is none of held_out_error, spectrum, "):
        columns(schema.Scores(primary=primary), task)


def test_the_page_says_which_levels_it_cannot_speak_of(html):
    assert "this base model alone" in html
    assert "Intervals are over 2 trainings of each arm and 5 stretches of one video." in html


def over_bases(inputs, *shifts):
    """The same on further base models, of which everything has other values by a shift and a wobble."""
    found = vars(inputs) | {"bases": dict(inputs.bases), "runs": list(inputs.runs), "scores": list(inputs.scores)}
    for number, shift in enumerate(shifts, start=1):
        base = f"base{number}/base"
        found["bases"][base] = inputs.base.model_copy(update={"name": base, "seed": number})
        for run in inputs.runs:
            model = run.model.model_copy(update={"name": f"base{number}/{run.model.name}"})
            found["runs"].append(dataclasses.replace(run, model=model, base=base))
        for row in inputs.scores:
            if row.model != "real" and row.value is not None:
                off = shift + (0.01 * number if row.model != "base" else 0)
                changed = {"model": f"base{number}/{row.model}", "value": row.value + off}
                found["scores"].append(row.model_copy(update=changed))
    return gather.Inputs(**found)


def test_an_arm_is_held_against_the_base_model_that_it_was_trained_on(inputs):
    """Base models lie far apart; what an arm changes in each is nearly the same."""
    one, several = ({v.arm: v.primary for v in judged(it)} for it in (inputs, over_bases(inputs, -5, 5)))
    for arm, cell in several.items():
        assert cell.delta.mean == pytest.approx(one[arm].delta.mean + 0.01)
        assert cell.delta.high - cell.delta.low < 0.5
        assert cell.mean.high - cell.mean.low > 5
        assert list(cell.each) == [f"{of}{arm}/seed{seed}" for of in ("", "base1/", "base2/") for seed in (0, 1)]
    scores = Scores(over_bases(inputs, -5, 5))
    far = [look for look in scores.of(["base1/sft/seed0"], "held_out_error") if look.clip == "clip008"]
    near = [look for look in scores.of(["base1/base"], "held_out_error") if look.clip == "clip008"]
    paired = stats.paired(far, scores.of(scores.bases, "held_out_error"))
    assert [it.value for it in paired] == [far[0].value - near[0].value]


def test_the_page_speaks_of_several_base_models(inputs):
    html = rendered(over_bases(inputs, 1, 2))
    assert "Intervals are over 3 base models and 5 stretches of one video." in html
    assert "this base model alone" not in html
    assert "compared with the base models, each arm with the one that it was trained on, on 6 held-out clips" in html
    assert "pairs and differences here are those of the first" in html
    assert "base model 2, seed 1" in html
    assert re.search(r'scope="row">base2/reg_<wbr>dpo/seed1', html)


def test_drift_and_sft(inputs):
    found = {verdict.arm: verdict for verdict in judged(inputs)}
    assert (found["dpo"].drift.drifting, found["dpo"].drift.seeds) == (2, 2)
    assert found["dpo"].drift.win_gap > 0
    assert found["reg_dpo"].drift.drifting == found["sft"].drift.drifting == 0
    assert not found["sft"].sft
    assert [row.sft for row in found["reg_dpo"].sft] == [row.sft for row in found["dpo"].sft] == ["sft"]
    assert "SFT explains the gain as far as can be seen here" in found["reg_dpo"].sft[0].says
    assert found["dpo"].sft[0].says == "Worse than SFT alone; no gain over base is told."

    def better(row):
        held = row.metric == "held_out_error" and row.model.startswith("reg_dpo")
        return {"value": row.value - 0.2} if held else None

    ahead = rescored(inputs, better)
    found = {verdict.arm: verdict for verdict in judged(ahead)}
    assert "does not explain all" in found["reg_dpo"].sft[0].says
    assert summary(list(found.values())).endswith(" Better than SFT of as many steps: reg_dpo.")
    longer = [replace(it, sft=[replace(one, steps=(2, 1)) for one in it.sft]) for it in found.values()]
    assert "Better than SFT" not in summary(longer)


SFT_ON = {"objective": "sft", "start": "sft"}
DDO = {"objective": "ddo", "beta": 5, "alpha": 0.3, "start": "sft", "generator": "previous"}


def planted(inputs, **shifts):
    """Held-out errors of an arm are sft's, shifted, and by a tenth of that more or less from clip to clip."""
    of = {row.score_id: row.value for row in inputs.scores}

    def shifted(row):
        arm, _, rest = row.score_id.partition("/")
        if row.metric != "held_out_error" or arm not in shifts:
            return None
        return {"value": of[f"sft/{rest}"] + shifts[arm] * (1 + 0.1 * (-1) ** int(row.clip_id[-3:]))}

    return rescored(inputs, shifted)


def test_preference_after_sft_is_held_against_sft_of_as_many_steps(inputs):
    """And not against its own start, which took fewer."""
    arms = {"sft": ARMS["sft"], "sft_on": SFT_ON, "ddo": DDO}
    shifted = planted(inputs, reg_dpo=-0.1, dpo=-0.3)
    found = {verdict.arm: verdict.sft for verdict in judged(recast(shifted, arms, reg_dpo="sft_on", dpo="ddo"))}
    assert (found["sft"], found["sft_on"]) == ([], [])
    (against,) = found["ddo"]
    assert (against.sft, against.steps) == ("sft_on", (120, 120))
    assert against.delta.mean == pytest.approx(-0.2)  # as many clips above it as below
    assert against.p == against.delta.p < 0.05  # one comparison needs no correction
    assert against.says == "Better than SFT alone: SFT does not explain all of the gain."


def test_where_no_sft_took_as_many_steps_all_sft_is_a_yardstick(inputs):
    """And it says so; all these comparisons are corrected together."""
    ddo = DDO | {"settings": {"steps": 30}}
    shifted = planted(inputs, reg_dpo=-0.1, dpo=0.001)
    found = judged(recast(shifted, {"sft": ARMS["sft"], "sft_on": SFT_ON, "ddo": ddo}, reg_dpo="sft_on", dpo="ddo"))
    first, second = found[-1].sft
    assert [(it.sft, it.steps) for it in (first, second)] == [("sft", (90, 60)), ("sft_on", (90, 120))]
    assert first.says.endswith(" Their steps differ: 90 of this arm, 60 of SFT.")
    assert second.says == "Worse than SFT alone: SFT explains the gain. Their steps differ: 90 of this arm, 120 of SFT."
    least, most = sorted((first, second), key=lambda it: it.delta.p)
    assert least.p == min(1, 2 * least.delta.p)
    assert most.p == max(least.p, most.delta.p)


def test_sft_after_a_preference_is_not_sft_alone(inputs):
    """And SFT before one is, if only a step on the way."""
    after = recast(inputs, {"sft": ARMS["sft"], "mixed": {"steps": [ARMS["dpo"], SFT_ON | {"start": "previous"}]}},
                   dpo="mixed.1", reg_dpo="mixed")  # fmt: skip
    assert [[it.sft for it in verdict.sft] for verdict in judged(after)] == [[], ["sft"]]
    before = recast(inputs, {"long": ARMS["sft"] | {"settings": {"steps": 120}},
                             "mixed": {"steps": [ARMS["sft"], ARMS["dpo"]]}},
                    sft="mixed.1", reg_dpo="long", dpo="mixed")  # fmt: skip
    assert [[it.sft for it in verdict.sft] for verdict in judged(before)] == [[], ["long"]]
    values = before.config.train.model_dump()
    values["arms"]["long"]["settings"] = {"steps": 100}
    config = before.config.model_copy(update={"train": schema.Train.model_validate(values)})
    assert [it.sft for it in judged(replace(before, config=config))[1].sft] == ["long", "mixed.1"]


def test_weights_of_pairs_are_shown_by_source_and_against_each_other(inputs):
    """Here half of the training pairs are of a source that weighs 9 and 19 times as much as the other, which is all 1."""
    assert pair_weights.histograms(inputs.pairs) == {}
    train = [pair for pair in inputs.pairs if pair.split == "train"]
    heavy = {pair.pair_id: 9.0 if number else 19.0 for number, pair in enumerate(train[:3])}
    given = [
        pair.model_copy(update={"origin": "ranked", "weight": heavy[pair.pair_id]}) if pair.pair_id in heavy else pair
        for pair in inputs.pairs
    ]
    found = pair_weights.histograms(given)
    ranked, gt = found["ranked"], found["gt"]
    assert (ranked.edges, ranked.counts) == (pytest.approx([*range(9, 20)]), [2, *[0] * 8, 1])
    assert (ranked.mean, ranked.share) == pytest.approx((37 / 3, 37 / 40))
    assert (gt.edges, gt.counts, gt.mean, gt.share) == ([1, 1], [3], 1, pytest.approx(3 / 40))
    html = page.render(replace(contents.shape(inputs), weights=found), inputs.store)
    text = " ".join(re.sub("<[^>]*>", " ", html).split())
    assert "of gt weigh Each of the 3 training pairs weighs 1. Together they have 8 % of the weight" in text  # 7.5
    assert "Weights of the 3 training pairs; their mean is 12.3. Together they have 92 % of the weight of all" in text
    assert "18 to 19 1 " in text
    alone = pair_weights.histograms([pair for pair in given if pair.origin == "ranked"])
    assert [it.share for it in alone.values()] == [1]


def test_split_is_read_from_the_rows(inputs):
    split = footage.split(inputs)
    assert (split.by, split.gap, split.held_out, split.stretches) == ("segment", 11, 6, 5)
    assert split.counts == {"street/carphone.mp4": {"train": 6, "validation": 2, "test": 6}}
    assert split.totals["test"] == {"pairs": 6, "clips": 6, "videos": 1}
    apart = [pair.model_copy(update={"source": pair.split}) for pair in inputs.pairs]
    clips = {p.clip_id: inputs.clips[p.clip_id].model_copy(update={"source": p.split}) for p in inputs.pairs}
    split = footage.split(gather.Inputs(**(vars(inputs) | {"pairs": apart, "clips": clips})))
    assert (split.by, split.gap) == ("source", None)


def test_shared_footage_is_called_out(inputs):
    early = {key: row.model_copy(update={"start": 6}) if key == "clip013" else row for key, row in inputs.clips.items()}
    assert "Splits share footage" in rendered(gather.Inputs(**(vars(inputs) | {"clips": early})))


def test_videos_are_the_files(inputs, html):
    scores = Scores(inputs)
    shown = examples.held_out(inputs, scores)
    assert 3 <= len(shown) <= 5
    labels = [label for example in shown for label in example.labels]
    assert sorted(label.split()[0] for label in labels) == ["best", "worst"]
    assert all(label.endswith("reg_dpo against base in Held-out error") for label in labels)
    ours, base = (scores.of(names, "held_out_error") for names in (["reg_dpo/seed0", "reg_dpo/seed1"], ["base"]))
    known = {look.clip: look.value for look in base}
    gains = {clip: known[clip] - fmean(look.value for look in ours if look.clip == clip) for clip in inputs.held_out}
    best = next(e for e in shown if any(label.startswith("best") for label in e.labels))
    assert best.clip.clip_id == max(gains, key=gains.get)
    assert [video.label for video in best.videos] == ["real", "base", "sft", "dpo", "reg_dpo"]
    played = Elements(html).all("video", "src")
    assert len(played) == 5 * len(shown) + 2 * 3
    real = base64.b64encode(inputs.store.existing(best.videos[0].path).read_bytes()).decode()
    assert f"data:video/mp4;base64,{real}" in [video["src"] for video in played if video["aria-label"] == "real"]
    assert all({"muted", "loop", "playsinline"} <= set(attributes) for attributes in played)
    assert not any("autoplay" in attributes for attributes in played)  # the script starts those of a clip together


def test_large_videos_are_scaled_down(inputs, tmp_path):
    clip = inputs.clips["clip000"].model_copy(update={"width": 640, "frames": 4})
    video = examples.Video("real", "real", clip.path, clip.sha256)
    uri = videos.data_uri(video, clip, inputs.store, inputs.config.clips.encode)
    (tmp_path / "small.mp4").write_bytes(base64.b64decode(uri.partition(",")[2]))
    assert read_frames(tmp_path / "small.mp4").shape == (4, 320, 320, 3)


def test_what_tells_halves_apart(inputs, html):
    found = {difference.name: difference for difference in differences(inputs.halves, 6)}
    assert list(found) == ["brightness", "contrast", "motion", "sharpness", "file size"]
    assert contents.shape(inputs).compared == 6  # training pairs
    assert found["sharpness"].winner > found["sharpness"].loser  # losers are blurred
    assert found["sharpness"].winner_higher == 6
    assert found["sharpness"].large
    assert not found["brightness"].large
    assert "tell winners from losers to a large extent" in html
    few = differences(inputs.halves, 10)
    assert all(difference.standardised is None and not difference.large for difference in few)
    assert page.apart(-92.0) == f"less than {page.MINUS}5"
    assert "No pair has both halves" in rendered(gather.Inputs(**(vars(inputs) | {"halves": []})))


def test_the_funnel_is_told_in_short(inputs, html):
    told = [(step.kind, step.taken, step.left, step.example) for step in contents.shape(inputs).funnel]
    assert told == [
        ("static", 2, 15, "motion 0.02 is below 0.5"),
        ("holds no frames", 1, 14, "holds no frames"),
    ]
    assert "14 clips were accepted, 3 rejected" in html
    assert "Captions: text files beside the videos." in html


def test_rejected_losers_are_counted_by_generator(inputs, html):
    (base,) = losers.generators(inputs.negatives)
    assert (base.name, base.how, base.made) == ("base", "wan i2v, 20 steps, guidance 1", len(inputs.pairs) + 1)
    assert [(why.kind, why.videos) for why in base.rejected] == [("black", 1)]
    assert "black: in every frame" in html
    rows = inputs.negatives["base"]
    others = [row.model_copy(update={"generator": "else", "model": "e" * 64}) for row in rows[:2]]
    its_own = [row.model_copy(update={"model": "d" * 64}) for row in rows[:3]]
    found = losers.generators({"base": [*rows, *others], "base1/base": [*its_own, *others]})
    assert [(it.name, it.made) for it in found] == [("base", len(rows)), ("base1/base", 3), ("else", 2)]


def test_pairs_that_others_made_stand_on_the_page(made, tmp_path):
    """They are no clips of the footage, and each source is counted."""
    first = gather.gather(made.values, made.store, made.files)
    one = first.pairs[0]
    row = ImportedRow(
        pair_id="theirs", status="accepted", origin="mine", source="mine/1", caption="a dog", winner=one.winner,
        winner_sha256=one.winner_sha256, loser=one.loser, loser_sha256=one.loser_sha256, votes="++-",
        **Geometry.of_row(one).model_dump(),
    )  # fmt: skip
    theirs = one.model_copy(
        update={"pair_id": "theirs", "clip_id": "theirs", "origin": "mine", "source": "mine/1", "caption": "a dog"}
    )
    (tmp_path / "mine").mkdir()
    rejected = [
        ImportedRow(
            pair_id=f"r{votes}", status="rejected", reason="tie: x", origin="mine", source="mine/2", votes=votes
        )
        for votes in ("+-", "--")
    ]
    manifests.write(tmp_path / "mine/0.parquet", [row, *rejected], ImportedRow)
    manifests.write(tmp_path / "pairs.parquet", [*first.pairs, theirs], PairRow)
    changes = {"imports": [tmp_path / "mine/0.parquet"], "pairs": tmp_path / "pairs.parquet"}
    found = gather.gather(made.values, made.store, gather.Files(**(vars(made.files) | changes)))
    assert found.cut.equals(first.cut)
    assert found.captions["theirs"].captioner == "the pairs of mine"
    assert found.digests["mine, part 0"][1] == 3
    assert footage.split(found).origins == {"gt": len(first.pairs), "mine": 1}
    html = rendered(found)
    assert f"Pairs by source: gt {len(first.pairs)}, mine 1." in html
    assert "but in pairs that others made." in html
    assert "the pairs of mine." in html
    # Krippendorff by hand: coincidences ++ 1, +- 2, -- 2 of 7 votes, so alpha = 1 - 6 * 2 / (3 * 4)
    assert "People judged 3 videos (or pairs of them) of mine; 1 are ties and left out; agreement" in html
    (said,) = contents.shape(found).raters.values()
    assert (said.judged, said.ties, said.agreement) == (3, 1, pytest.approx(0))


def test_pairs_that_were_chosen_by_score_are_no_footage(made, tmp_path):
    """Their winners lie on no shot, and so in no gap between splits."""
    first = gather.gather(made.values, made.store, made.files)
    one = next(pair for pair in first.pairs if pair.split == "test")
    where = {"pair_id": "best", "clip_id": "ranked.x", "origin": "ranked", "split": "train", "caption": "a dog"}
    manifests.write(tmp_path / "pairs.parquet", [*first.pairs, one.model_copy(update=where)], PairRow)
    ranked = {"kind": "best_of_n", "candidates": {"score": {"sharpness": 1}}}
    sources = {"sources": {"gt": {"kind": "gt"}, "ranked": ranked}}
    values = {**made.values, "pairs": {**made.values.get("pairs", {}), **sources}}
    files = gather.Files(**(vars(made.files) | {"pairs": tmp_path / "pairs.parquet"}))
    found = gather.gather(values, made.store, files)
    assert (found.clips["ranked.x"].path, found.captions["ranked.x"].caption) == (one.winner, "a dog")
    assert contents.shape(found).captioners == contents.shape(first).captioners, "they are captions of clips"
    assert "in pairs of several videos of a prompt both were generated" in rendered(found)
    assert footage.split(found).gap == footage.split(first).gap
    assert footage.split(found).origins == {"gt": len(first.pairs), "ranked": 1}


def test_versions_hold_for_this_python(inputs):
    assert inputs.packages == {"torch": "2.13.0", "numpy": "2.4.6", "scipy": "1.18.1"}


def test_bad_inputs_are_one_line(made, tmp_path):
    def refuse(match, **changes):
        with pytest.raises(UserError, match=match):
            gather.gather(made.values, made.store, gather.Files(**(vars(made.files) | changes)))

    refuse("exactly base, and the arms", models=made.files.models[1:])
    refuse("no arm was trained", models=made.files.models[:1])
    other = json.loads(made.files.models[1].read_text()) | {"name": "base1/sft/seed0"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    refuse(r"was trained on base1/base; .*base.seeds", models=[*made.files.models, tmp_path / "other.json"])
    stranger = json.loads(made.files.models[1].read_text()) | {"arm": "stranger"}
    (tmp_path / "model.json").write_text(json.dumps(stranger))
    refuse("stranger is not in train.arms", models=[*made.files.models, tmp_path / "model.json"])
    manifests.write(tmp_path / "clips.parquet", [], ClipRow)
    refuse("lacks clip", clips=tmp_path / "clips.parquet")
    refuse("cannot be read as a parquet table", scores=tmp_path / "none.parquet")
    refuse("none.parquet: cannot be read", negatives=[tmp_path / "none.parquet"])
    refuse("2 manifests for 1 base models", negatives=[made.files.negatives[0]] * 2)
    halves = manifests.read(made.files.halves, HalfRow)
    for other in (halves[1:], [*halves[:-1], halves[-1].model_copy(update={"sha256": "0" * 64})]):
        manifests.write(tmp_path / "halves.parquet", other, HalfRow)
        refuse("other halves of pair pair00", halves=tmp_path / "halves.parquet")


def test_steps_that_were_skipped_and_drift_are_marked(made, inputs):
    """As the guard marks them: where over 20 steps accuracy is near 1 while the winners get worse, from the first."""
    run = next(run for run in inputs.runs if run.model.name == "dpo/seed1")
    path = made.store.existing(run.model.run) / "metrics.jsonl"
    whole = path.read_text()
    rows = [
        {"step": step, "loss": 1.0, "accuracy": 1.0, "win_gap": 0.1 if step > 50 else -0.1} for step in range(1, 201)
    ]
    rows[6] |= {"loss": None, "accuracy": None, "win_gap": None, "skipped": ["pair003"]}
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    try:
        found = contents.shape(gather.gather(made.values, made.store, made.files))
    finally:
        path.write_text(whole)
    marks = {(it.arm, it.seed): it for it in found.marks}
    turns = 61  # of the 20 steps up to it 11 are worse and 9 better
    assert (marks["dpo", 1].drift, marks["dpo", 1].skipped, marks["dpo", 1].over) == ([turns], [7], 20)
    assert marks["sft", 0].drift == marks["sft", 0].skipped == []
    line = next(line for curve in found.curves for line in curve.lines if (line.arm, line.seed) == ("dpo", 1))
    assert 7 not in line.steps


def test_damaged_metrics_name_their_line(made, inputs):
    path = made.store.existing(inputs.runs[0].model.run) / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 61, "lo')
    try:
        with pytest.raises(UserError, match=r"metrics.jsonl, line 61"):
            gather.gather(made.values, made.store, made.files)
    finally:
        path.write_text(whole)


def test_numbers():
    assert page.number(-0.0004, 3) == "0.000"
    assert page.signed(-0.0004, 3) == "0.000"
    assert page.signed(-1.5, 2) == f"{page.MINUS}1.50"
    assert page.signed(0.0126, 2) == "+0.01"
    assert page.span(Interval(0.5, -0.25, 0.75, 9), 2) == f"[{page.MINUS}0.25,{page.SPACE}0.75]"
    assert page.change(Interval(0.0, None, None, 9, why="all values agree"), 3) == "0.000 no interval: all values agree"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0143, 0.014, "0.000 [-0.014, +0.014]"),
        (0.00011, 0.9, "+0.4501 [+0.0001, +0.9000]"),
        (1e-5, 3e-5, "+0.00002 [+0.00001, +0.00003]"),
    ],
)
def test_differences_show_what_they_say(low, high, expected):
    shown = page.change(Interval((low + high) / 2, low, high, 9), 3)
    assert shown.replace(page.SPACE, " ").replace(page.MINUS, "-") == expected


def test_steps_of_a_chain_stand_before_their_arm(inputs):
    """Each has its row and its curves; the verdicts are about arms. Here the arm dpo plays the first step of reg_dpo."""
    steps = [ARMS["dpo"], ARMS["reg_dpo"] | {"generator": "previous"}]
    changed = recast(inputs, {"sft": ARMS["sft"], "reg_dpo": {"steps": steps}}, dpo="reg_dpo.1")
    content = contents.shape(changed)
    assert list(content.table) == ["real", "base", "sft", "reg_dpo.1", "reg_dpo"]
    assert [verdict.arm for verdict in content.verdicts] == ["sft", "reg_dpo"]
    assert {line.arm for curve in content.curves for line in curve.lines} == {"sft", "reg_dpo.1", "reg_dpo"}
    text = " ".join(re.sub("<[^>]*>", "", page.render(content, inputs.store)).split())
    assert "dpo · β 50 · step 1 of 2 · from base" in text
    assert "r = DGR · step 2 of 2 · from reg_dpo.1 · losers by reg_dpo.1" in text
    assert "2 arms of 2 training seeds" in text
    assert re.search(
        r"Their steps differ: 120 of this arm, 60 of SFT\. "
        r"\(minus sft: \+?\S+ \[\S+ \S+\], p \S+ after correction\)",
        text,
    )
