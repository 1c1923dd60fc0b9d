"""Manifests: what a stranger's table or a disk may do to them, by columns and by parts."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field, ValidationError

from regdpo.core import columns, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import CaptionRow, ClipRow, PairRow, Row, ScoreRow

ROOT = Path(manifests.__file__).parents[2]


def caption(clip_id: str, text: str = "a cat") -> CaptionRow:
    return CaptionRow(clip_id=clip_id, caption=text, captioner="sidecar:a.txt")


def test_equal_rows_are_equal_bytes(tmp_path):
    rows = [caption("b"), caption("a")]
    manifests.write(tmp_path / "one", rows, CaptionRow)
    manifests.write(tmp_path / "two", rows[::-1], CaptionRow)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert [row.clip_id for row in manifests.read(tmp_path / "one", CaptionRow)] == ["a", "b"]
    row = {"clip_id": "a", "status": "accepted", "source": "a.mp4", "source_digest": "0"}
    for name, scores in (("one", {"x": 1.0, "y": 2.0}), ("two", {"y": 2.0, "x": 1.0})):
        manifests.write(tmp_path / name, [ClipRow(**row, scores=scores)], ClipRow)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_missing_score_stays_missing(tmp_path):
    manifests.write(tmp_path / "s", [ScoreRow(score_id="x", model="base", metric="psnr", missing="no GPU")], ScoreRow)
    assert manifests.read(tmp_path / "s", ScoreRow)[0].value is None


def test_a_wrong_row_is_named(tmp_path):
    pq.write_table(pa.table({"clip_id": ["a", "b"], "caption": ["x", None], "captioner": ["m", "m"]}), tmp_path / "t")
    with pytest.raises(UserError, match=r"row 1, column caption"):
        manifests.read(tmp_path / "t", CaptionRow)
    (tmp_path / "no").write_text("PAR?")
    with pytest.raises(UserError, match="cannot be read as a parquet table"):
        manifests.read(tmp_path / "no", CaptionRow)


def test_no_flipped_bit_changes_a_value_silently(tmp_path):
    """Anywhere in the file, its footer too."""
    rows = [caption(f"clip-{number:03}", f"a cat, take {number}") for number in range(60)]
    path = tmp_path / "t"
    manifests.write(path, rows, CaptionRow)
    data = path.read_bytes()
    refused = 0
    for bit in range(0, 8 * len(data), 8 * len(data) // 150 + 1):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert manifests.read(path, CaptionRow) == rows, f"bit {bit}"
        except UserError as error:
            assert "then the same command" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 75


def test_the_digests_of_columns_cover_what_pages_do_not(tmp_path):
    """A footer that says other things of the same pages: the digests that it holds are of another content."""
    for name, text in (("one", "a cat"), ("two", "a dog")):
        manifests.write(tmp_path / name, [caption("a", text)], CaptionRow)
    told = pq.read_metadata(tmp_path / "two").metadata[manifests.CONTENT]
    data = (tmp_path / "one").read_bytes()
    mine = pq.read_metadata(tmp_path / "one").metadata[manifests.CONTENT]
    assert data.count(mine) == 1
    (tmp_path / "one").write_bytes(data.replace(mine, told))
    with pytest.raises(UserError, match=r"one: is damaged \(its content has another digest"):
        manifests.read(tmp_path / "one", CaptionRow)


def _bomb(kind: str) -> pa.Table:
    if kind == "rows":
        return pa.table({"clip_id": pa.nulls(manifests.MOST_ROWS + 1, pa.string())})
    if kind == "empty rows":
        return pa.table(dict.fromkeys(("clip_id", "caption"), pa.nulls(8_000_000, pa.string())))
    size, count = (2**20, 5000) if kind == "one text in many rows" else (2**24, 300)
    text = pa.array(["x" * size])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), text)
    return pa.table({"clip_id": pa.array(map(str, range(count))), "caption": column})


@pytest.mark.parametrize("kind", ["rows", "empty rows", "one text in many rows", "a large text"])
def test_a_table_that_unfolds_to_gigabytes_is_refused(tmp_path, kind):
    pq.write_table(_bomb(kind), tmp_path / "t", compression="zstd")
    assert (tmp_path / "t").stat().st_size < 400_000
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(
        UserError, match=r"unfolds to \d+ rows of [\d.]+ GiB; a manifest has at most 20000000 and 4 GiB"
    ):
        manifests.read(tmp_path / "t", CaptionRow)
    assert pa.default_memory_pool().max_memory() - before < 500e6


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"clip_id": ["a"], "x": [1]}, "column x: is none of a CaptionRow"),
        ({"clip_id": [["a"]]}, "column clip_id: is none of a CaptionRow"),
        (
            {"clip_id": [1], "caption": ["a"], "captioner": ["m"]},
            "row 0, column clip_id: Input should be a valid string",
        ),
        ({"clip_id": ["a"]}, "row 0, column caption: Field required"),
        ({"clip_id": pa.array([b"\xff"]).cast(pa.string(), safe=False)}, "cannot be read as a parquet table"),
    ],
)
def test_tables_of_others(tmp_path, columns, what):
    pq.write_table(pa.table(columns), tmp_path / "t")
    with pytest.raises(UserError, match=what):
        manifests.read(tmp_path / "t", CaptionRow)


def test_a_truncated_manifest_is_told_with_the_command_that_mends_it(tmp_path):
    path = tmp_path / "my clips.parquet"
    manifests.write(path, [caption("a")], CaptionRow)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"; to make it again: rm '.*/my clips.parquet', then the same command$"):
        manifests.read(path, CaptionRow)


def test_an_id_occurs_once(tmp_path):
    with pytest.raises(UserError, match="the id a occurs twice"):
        manifests.write(tmp_path / "t", [caption("a"), caption("a", "a dog")], CaptionRow)


class Checked(Row):
    """Every kind of column, with bounds."""

    name: str = Field(min_length=2)
    kind: Literal["a", "b"]
    share: float | None = Field(default=None, ge=0, lt=1)
    count: int = Field(default=3, gt=2, le=9)
    told: bool = False
    scores: dict[str, float] = Field(default={})


GOOD = {"kind": "a", "share": 0.5, "count": 4, "told": True, "scores": {"x": 1.0, "y": 2.0}}


def table_of(rows: list[dict]) -> pa.Table:
    """Written by another program: no digests, nothing checked."""
    values = {name: [row[name] for row in rows] for name in Checked.model_fields}
    values["scores"] = [None if scores is None else list(scores.items()) for scores in values["scores"]]
    return pa.table(values, schema=columns.schema_of(Checked))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "x"},
        {"name": None},
        {"kind": "c"},
        {"kind": None},
        {"share": 1.0},
        {"share": -0.5},
        {"share": float("nan")},
        {"count": 2},
        {"count": 10},
        {"count": None},
        {"told": None},
        {"scores": {"x": 1.0, "y": None}},
        {"scores": None},
    ],
    ids=str,
)
def test_columns_are_checked_as_pydantic_checks_rows(tmp_path, wrong):
    """In the second group of rows; the message is pydantic's."""
    rows = [{"name": f"row-{number:06}"} | GOOD for number in range(manifests.GROUP + 50)]
    rows[-7] |= wrong
    with pytest.raises(ValidationError) as said:
        Checked.model_validate(rows[-7])
    error = said.value.errors()[0]
    pq.write_table(table_of(rows), tmp_path / "t", row_group_size=manifests.GROUP)
    column = ".".join(map(str, error["loc"]))
    line = f"{tmp_path}/t, row {len(rows) - 7}, column {column}: {error['msg']}; to make it again: rm {tmp_path}/t, "
    for read in (manifests.read, manifests.read_table):
        with pytest.raises(UserError, match=re.escape(line)):
            read(tmp_path / "t", Checked)
    with pytest.raises(UserError, match=re.escape(f"row {len(rows) - 7}, column {column}: {error['msg']}")):
        manifests.write_table(tmp_path / "mine", table_of(rows), Checked)
    assert not (tmp_path / "mine").exists()


def test_every_row_model_has_its_checks():
    for model in Row.__subclasses__():
        assert columns.schema_of(model).names == list(model.model_fields)


def test_a_table_without_what_has_a_default(tmp_path):
    pq.write_table(pa.table({"name": ["xy"], "kind": ["a"]}), tmp_path / "t")
    assert manifests.read(tmp_path / "t", Checked) == [Checked(name="xy", kind="a")]


def test_an_id_that_occurs_twice_is_told_when_it_is_read(tmp_path):
    """Also where the rows are in no order."""
    for ids in (["a", "b", "b"], ["b", "a", "c", "b"]):
        pq.write_table(pa.table({"clip_id": ids, "caption": ids, "captioner": ids}), tmp_path / "t")
        with pytest.raises(UserError, match=rf"t, row {len(ids) - 1}, column clip_id: the id b occurs twice; to make"):
            manifests.read(tmp_path / "t", CaptionRow)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple:
    """Three groups of rows, every third of which was rejected."""
    rows = [
        ClipRow(
            clip_id=f"clip-{number:06}",
            status="accepted" if number % 3 else "rejected",
            source=f"{number // 20}.mp4",
            source_digest="",
            scores={"motion": float(number)} if number % 2 else {},
        )
        for number in range(2 * manifests.GROUP + 500)
    ]
    path = tmp_path_factory.mktemp("many") / "clips.parquet"
    manifests.write(path, rows, ClipRow)
    return path, rows


@pytest.mark.parametrize("count", [1, 7, 256])
def test_shards_are_all_rows_once_and_of_one_size(many, count):
    path, rows = many
    those = range(count) if count < 10 else (0, 1, 100, 255)
    shards = [manifests.read_shard(path, ClipRow, index, count) for index in those]
    assert shards == [manifests.in_shard(rows, index, count) for index in those]
    if count < 10:
        assert [row for shard in shards for row in shard] == rows
    accepted = [row for row in rows if row.status == "accepted"]
    for index in those:
        taken = manifests.read_shard(path, ClipRow, index, count, status="accepted")
        assert taken == manifests.in_shard(accepted, index, count)


def test_of_a_shard_its_groups_are_read_alone(many, monkeypatch):
    path, rows = many
    read = []
    batches = manifests._File.batches
    monkeypatch.setattr(
        manifests._File, "batches", lambda self, names, groups: (read.append(groups), batches(self, names, groups))[1]
    )
    manifests.read_shard(path, ClipRow, 255, 256)
    assert manifests.read(path, ClipRow, {"clip-000001", "clip-000007", "clip-000007b"}) == [rows[1], rows[7]]
    assert read == [[2], [0]]
    assert manifests.read(path, ClipRow, ()) == []


def test_rows_with_wanted_values(many):
    path, rows = many
    found = manifests.read_where(
        path, ClipRow, status=lambda it: it == "accepted", source=lambda it: it.startswith("7")
    )
    assert found == [row for row in rows if row.status == "accepted" and row.source.startswith("7")]
    assert manifests.read_where(path, ClipRow, source=lambda it: False) == []


def test_parts_are_merged_to_the_bytes_of_the_whole(many, tmp_path, monkeypatch):
    """By stretches that are shorter than usual."""
    monkeypatch.setattr(manifests, "STRETCH", manifests.GROUP)
    path, rows = many
    parts = [tmp_path / f"{part}.parquet" for part in range(5)]
    random = np.random.default_rng(0).integers(0, 4, len(rows))  # the last has none
    for part, where in enumerate(parts):
        manifests.write(where, [row for row, of in zip(rows, random, strict=True) if of == part], ClipRow)
    manifests.merge(tmp_path / "merged", parts, ClipRow)
    assert (tmp_path / "merged").read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match=rf"merged: the id {rows[0].clip_id} occurs twice"):
        manifests.merge(tmp_path / "merged", [*parts, path], ClipRow)
    pq.write_table(manifests.read_table(parts[0], ClipRow)[::-1], parts[0])  # another program's, in another order
    manifests.merge(tmp_path / "again", parts, ClipRow)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert {it.name for it in tmp_path.iterdir()} == {*(part.name for part in parts), "merged", "again"}


BAD = {
    "a missing column": ({"clip_id": ["a"], "caption": ["x"]}, "row 0, column captioner: Field required"),
    "an id twice": ({"clip_id": ["a", "a"], "caption": ["x", "y"], "captioner": ["m", "m"]}, "the id a occurs twice"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_manifest_is_one_line_and_exit_code_2(tmp_path, bad):
    values, line = BAD[bad]
    pq.write_table(pa.table(values), tmp_path / "t")
    command = [sys.executable, ROOT / "scripts/merge.py", "--rows", "CaptionRow", "--out", tmp_path / "out"]
    done = subprocess.run(
        [*command, tmp_path / "t"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/t, ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert [it.name for it in tmp_path.iterdir()] == ["t"]


def test_a_path_outside_the_store_is_one_line_and_exit_code_2(tmp_path):
    row = PairRow(
        pair_id="a",
        split="train",
        clip_id="a",
        source="a.mp4",
        shot=0,
        start=0,
        caption="x",
        frames=5,
        fps=8.0,
        width=32,
        height=32,
        winner="../../etc/passwd",
        winner_sha256="0" * 64,
        loser="/etc/passwd",
        loser_sha256="0" * 64,
    )
    manifests.write(tmp_path / "pairs", [row], PairRow)
    (tmp_path / "store").mkdir()
    command = [sys.executable, ROOT / "scripts/halves.py", "--store", tmp_path / "store"]
    done = subprocess.run(
        [*command, "--pairs", tmp_path / "pairs", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ../../etc/passwd: leads out of the store")
    assert "Traceback" not in done.stderr
