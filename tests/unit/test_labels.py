"""What people said of videos as pairs and labels: majorities, ties, axes, and the formats that it comes in."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import frame, rows_of

from regdpo.config.schema import Clips, Encode, PairSource
from regdpo.config.stage_inputs import ImportsStage, PairsStage
from regdpo.core.digests import DigestCache
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, ImportedRow, NegativeRow, PairRow
from regdpo.core.store import Store
from regdpo.data import labels
from regdpo.data.pair_lists import pairs_of
from regdpo.data.video import write_frames
from regdpo.stages import imports, pairs


@pytest.fixture
def folder(tmp_path):
    for name in "abcd":
        write_frames(tmp_path / f"{name}.mp4", np.full((6, 32, 32, 3), 40 * ord(name) % 250, np.uint8), 8, Encode())
    return tmp_path


def source(path, text: str | None = None, **more) -> PairSource:
    if text is not None:
        path.write_text(text)
    return PairSource.model_validate({"kind": "labels", "path": str(path), **more})


def told(found: PairSource) -> list[tuple[str, str, str, str]]:
    """Winner, loser, label and kind of the reason, of each."""
    rows = pairs_of("mine", found)
    return [(row.winner.name, row.loser.name, row.label, row.reason.partition(":")[0]) for row in rows]


COMPARED = """a,b,answer,rater,axis,caption
a.mp4,b.mp4,b,r1,VQ,c
a.mp4,b.mp4,b,r2,VQ,c
b.mp4,a.mp4,b,r3,VQ,c
c.mp4,d.mp4,same,r1,VQ,c
c.mp4,d.mp4,a,r1,PF,c
a.mp4,c.mp4,a,r1,VQ,c
a.mp4,c.mp4,b,r2,VQ,c
"""


def test_the_majority_of_raters_decides_and_ties_are_left_out(folder):
    """Of two for b and one, who saw them the other way round, for a: b."""
    found = source(folder / "said.csv", COMPARED, axis="VQ")
    assert told(found) == [("b.mp4", "a.mp4", "", ""), ("", "", "", "tie"), ("", "", "", "tie")]
    assert told(source(folder / "said.csv", axis="PF")) == [("c.mp4", "d.mp4", "", "")]
    with pytest.raises(UserError, match=r"said.csv: has answers on PF, VQ; choose one with `axis`"):
        labels.verdicts(source(folder / "said.csv"))
    assert imports.agreement(found)[0].startswith("3 videos or pairs of them were judged, 2 are ties")


def test_absolute_labels_and_grades(folder):
    words = "video,label,rater,caption\na.mp4,pass,1,c\na.mp4,fail,2,c\na.mp4,Pass,3,c\nb.mp4,fail,1,c\nc.mp4,no,1,c\n"
    words += "c.mp4,yes,2,c\n"
    wanted = [("a.mp4", "", "good", ""), ("b.mp4", "", "bad", ""), ("", "", "", "tie")]
    assert told(source(folder / "words.csv", words)) == wanted
    grades = "video,grade,caption\na.mp4,3.5,c\nb.mp4,3.4,c\n"
    assert told(source(folder / "grades.csv", grades, threshold=3.5)) == wanted[:2]
    with pytest.raises(UserError, match=r"grades.csv, row 1: is a grade, which needs `threshold`"):
        labels.verdicts(source(folder / "grades.csv"))
    with pytest.raises(UserError, match=r"x.csv, row 1: label 'maybe' is none of"):
        labels.verdicts(source(folder / "x.csv", "video,label\na.mp4,maybe\n"))
    with pytest.raises(UserError, match=r"y.csv, row 1: has no label"):
        labels.verdicts(source(folder / "y.csv", "video,name\na.mp4,maybe\n"))


def test_the_rating_pages_labels_and_label_studios_export(folder):
    """A clip that two of three call generated is bad; whoever calls it professional says good."""
    rows = [
        {"label_id": f"1|{question}", "path": "a.mp4", "caption": "c", "prompt_id": "p", "question": question, "yes": 2,
         "raters": 3}
        for question in ("generated", "professional")
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")
    assert told(source(folder / "labels.parquet", axis="generated")) == [("a.mp4", "", "bad", "")]
    assert told(source(folder / "labels.parquet", axis="professional")) == [("a.mp4", "", "good", "")]
    task = {
        "data": {"left": "a.mp4", "right": "b.mp4", "caption": "c"},
        "annotations": [
            {"completed_by": by, "result": [{"from_name": "VQ", "value": {"choices": [said]}}], "was_cancelled": out}
            for by, said, out in (({"email": "x"}, "right", False), (2, "right", False), (3, "left", True))
        ],
    }
    assert told(source(folder / "export.json", json.dumps([task]))) == [("b.mp4", "a.mp4", "", "")]


def exported(value: object, name: str = "a.mp4") -> str:
    results = [{"from_name": "VQ", "value": value}, {"from_name": "remark", "value": {"text": ["hm"]}}]
    return json.dumps([{"data": {"video": name}, "annotations": [{"completed_by": 1, "result": results}]}])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "video,label,answer\na.mp4,great,a\n", r"row 1: label 'great' is none of"),
        (
            "a.csv",
            "video,label,caption\na.mp4,pass,a dog, running\n",
            r"row 1, which ends in line 2: has more columns than the first line",
        ),
        ("a.csv", "video,label,label\na.mp4,pass,fail\n", r"has 2 columns label; keep one"),
        ("a.csv", "video,grade\na.mp4,nan\n", r"row 1: grade 'nan' is no number"),
        ("a.csv", "video,grade\na.mp4,good\n", r"row 1: grade 'good' is no number"),
        ("a.csv", "question,yes,raters\ngenerated,1,2\n", r"is not of a form that is known"),
        ("a.json", exported({"choices": []}), r"is not of a form that is known"),
        ("a.json", exported("pass"), r"is not of a form that is known"),
        ("a.json", exported({"choices": ["pass"]}, "\ud800.mp4"), r"row 1: holds half of a character"),
    ],
)
def test_what_is_no_answer_is_told_in_one_line(folder, name, text, message):
    with pytest.raises(UserError, match=message) as told:
        pairs_of("mine", source(folder / name, text, axis="VQ" if name == "a.json" else None, threshold=3))
    assert "\n" not in str(told.value)


def test_other_questions_of_an_export_and_long_captions_do_no_harm(folder):
    assert labels.verdicts(source(folder / "a.json", exported({"choices": ["pass"]}), axis="VQ"))[0].label == "good"
    long = f"video,label,caption\na.mp4,pass,{'y' * 200_000}\n"
    assert len(labels.verdicts(source(folder / "a.csv", long))[0].caption) == 200_000


def test_labelled_videos_are_rows_without_a_loser(folder):
    text = "video,label,caption,group\na.mp4,pass,c,g1\nb.mp4,fail,c,g2\n"
    found = source(folder / "words.csv", text)
    clips = Clips.model_validate({"frames": 5, "fps": 8, "width": 32, "height": 32})
    stage = ImportsStage(sources={"mine": found}, clips=clips)
    made = imports.import_shard(stage, "mine", 0, 1, Store(folder / "store"), DigestCache(folder / "digests.json"))
    assert {(row.status, row.label, row.loser) for row in made} == {("accepted", "good", ""), ("accepted", "bad", "")}
    more = [
        made[0].model_copy(update={"pair_id": f"x{n}", "group": f"h{n}", "source_digest": f"{n}"}) for n in range(40)
    ]
    told = PairsStage.model_validate({"pairs": {}, "frames": 5, "known": [], "alone": False})
    empty = frame([], ClipRow), frame([], CaptionRow), frame([], NegativeRow)
    built = rows_of(pairs.build(told, *empty, [], frame([*made, *more], ImportedRow))[0], PairRow)
    assert {row.label for row in built if row.pair_id in {it.pair_id for it in made}} == {"good", "bad"}
    assert not any(row.loser for row in built)
