"""The table of videos: what is read from it, and what is refused with its row."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regdpo.config import schema
from regdpo.core.errors import UserError
from regdpo.data import footage, table

CSV = (
    "path,start,end,caption,licence,group,url\n"
    'a/b.mp4,10,12.5,"A dog, running.\nFast.",CC-BY 4.0,trip,x\n'
    "a/b.mp4,1,2,A cat.,CC-BY 4.0,trip,x\n"
    "./NA.mp4,,,,,,\n"
)


def written(folder: Path, text: str | bytes, name: str = "videos.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "bom", "parquet"])
def test_rows_are_videos_with_stretches(tmp_path, kind):
    file = written(tmp_path, (b"\xef\xbb\xbf" if kind == "bom" else b"") + CSV.encode())
    if kind == "parquet":
        frame = pd.read_csv(file, keep_default_na=False).replace("", None).astype({"start": float, "end": float})
        file = tmp_path / "videos.parquet"
        frame.to_parquet(file)
    found = table.read(file)
    assert list(found) == ["NA.mp4", "a/b.mp4"]
    one = found["a/b.mp4"]
    assert (one.licence, one.group) == ("CC-BY 4.0", "trip")
    assert [(it.start, it.end, it.caption, it.row) for it in one.stretches] == [
        (1.0, 2.0, "A cat.", 2),
        (10.0, 12.5, "A dog, running. Fast.", 1),
    ]
    assert [(it.start, it.end, it.caption) for it in found["NA.mp4"].stretches] == [(0.0, math.inf, "")]
    assert [one.at(seconds) and one.at(seconds).caption[:5] for seconds in (0.9, 1, 1.99, 2, 12)] == [
        *(None, "A cat", "A cat", None, "A dog"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path\n../a.mp4\n", r"videos.csv, row 1, column path: '../a.mp4' does not lie below videos.root"),
        ("path\na.mp4\n/etc/passwd\n", "row 2, column path: '/etc/passwd' does not lie below"),
        ('path,start\n"",1\n', "row 1, column path: names no file"),
        ("path,start\na.mp4,1:30\n", "row 1, column start: '1:30' is no number of seconds"),
        ("path,start,end\na.mp4,5,5\n", "row 1: from 5 to 5 s is no stretch of a video"),
        ("path,start,end\na.mp4,-1,5\n", "row 1: from -1 to 5 s is no stretch"),
        ("path,start,end\na.mp4,nan,5\n", "row 1: from nan to 5 s is no stretch"),
        ("path,start,end\na.mp4,0,5\nb.mp4,,\na.mp4,4,9\n", "row 3: 4 s to 9 s meets 0 s to 5 s of row 1"),
        ("path\na.mp4\n./a.mp4\n", "row 2: 0 s to the end meets 0 s to the end of row 1"),
        ("path,start,end,group\na.mp4,0,1,x\na.mp4,1,2,y\n", "row 2, column group: 'y', but row 1 says 'x'"),
        ("path,captoin\na.mp4,x\n", "column 'captoin': did you mean 'caption'"),
        ("path,license\na.mp4,x\n", "column 'license': did you mean 'licence'"),
        ("Path\na.mp4\n", "column 'Path': did you mean 'path'"),
        ("file\na.mp4\n", "has no column `path` .there are file"),
        ("path,caption\na.mp4,a\x07b\n", r"row 1, column caption: holds the character U\+0007"),
        (b"path\n\xff\xfe\n", "videos.csv: is no table"),
        ("path\na.mp4\n".encode("utf-16"), "videos.csv: is text in UTF-16 or no text; save it as CSV in UTF-8"),
        (b"path\n\x1b[31m,a\n", r"videos.csv: is no table .CSV parse error: .*Expected 1 columns, got 2: .x1b\[31m,a"),
        ("path;start\na.mp4;1\n", "has no column `path` .there are path;start.; columns are told apart by commas"),
        ("path,caption\na.mp4," + "word " * 600_000, "row 1, column caption: has more than 1048576 bytes"),
        ("path\n" + "x" * 4097, "row 1, column path: names no file"),
        (
            'path,caption\nx.mp4,"y\ny"\n\na.mp4,"A dog\nb.mp4,A cat\n',
            "row 2, which begins in line 5: a quote is not closed",
        ),
        (
            'path,caption\na.mp4,"A dog\nb.mp4,"A cat"\nc.mp4,y\n',
            "row 1, which begins in line 2: a quote is not closed",
        ),
        ('path,"caption\na.mp4,A dog\n', "line 1: a quote is not closed"),
        ("path\n", "lists no videos"),
        ("", "videos.csv: is no table"),
    ],
)
def test_what_does_not_fit_is_told_with_its_row(tmp_path, text, says):
    with pytest.raises(UserError, match=says) as caught:
        table.read(written(tmp_path, text))
    assert str(caught.value).isprintable()


def test_a_table_that_is_none_is_told(tmp_path):
    with pytest.raises(UserError, match=r"videos.parquet: is no table"):
        table.read(written(tmp_path, "nothing", "videos.parquet"))
    with pytest.raises(UserError, match=r"has to be a .csv or a .parquet file"):
        table.read(written(tmp_path, "path\na.mp4\n", "videos.txt"))
    with pytest.raises(UserError, match=r"videos.table: .*none.csv: cannot be read \(No such file"):
        table.listing(schema.Videos(root=str(tmp_path), table=str(tmp_path / "none.csv")))
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match=r"videos.table: .*pipe.csv: is no regular file"):
        table.listing(schema.Videos(root=str(tmp_path), table=str(tmp_path / "pipe.csv")))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"path": [b"a.mp4"]}, "column path: holds binary where text or numbers have to be"),
        ({"path": ["a.mp4"], "caption": [["a", "b"]]}, "column caption: holds list<"),
        ({"path": ["a.mp4"], "start": [True]}, "column start: holds bool"),
        ({"path": ["a.mp4"], "start": pa.array([2**62], pa.timestamp("us"))}, "column start: holds timestamp"),
        ({"path": pa.nulls(1)}, "row 1, column path: names no file"),
        ({"path": pa.array([b"\xff"]).cast(pa.string(), safe=False)}, "is no table .*UTF8"),
        ({"path": pa.DictionaryArray.from_arrays([0] * 5000, ["x" * 2**20])}, "may unfold to 5000 rows of 4.9 GiB"),
        ({"path": pa.nulls(21_000_000)}, "may unfold to 21000000 rows"),
    ],
)
def test_a_parquet_table_of_odd_types_is_told(tmp_path, columns, says):
    pq.write_table(pa.table(columns), tmp_path / "videos.parquet")
    with pytest.raises(UserError, match=says) as caught:
        table.read(tmp_path / "videos.parquet")
    assert str(caught.value).isprintable()


def test_other_columns_of_a_table_are_left_alone(tmp_path):
    """Also those without a name, as spreadsheets write them, and what is no text in them; whole numbers are a group."""
    file = written(tmp_path, b'path,,,note\na.mp4,,,"caf\xe9"\n')
    assert list(table.read(file)) == ["a.mp4"]
    odd = {"path": ["a.mp4"], "group": [7], "end": pa.array([2], pa.float32()), "note": [[{"a": b"\xff"}]]}
    pq.write_table(pa.table(odd), tmp_path / "videos.parquet")
    (one,) = table.read(tmp_path / "videos.parquet").values()
    assert (one.group, one.stretches[0].end) == ("7", 2.0)


def test_only_listed_videos_are_used_and_all_have_to_be_there(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    for name in ("a/b.mp4", "NA.mp4", "other.mp4", "odd.bin"):
        (root / name).write_bytes(b"")
    file = written(tmp_path, CSV + "odd.bin,,,,,,\n")
    videos = schema.Videos(root=str(root), table=str(file))
    assert footage.list_videos(videos) == ["NA.mp4", "a/b.mp4", "odd.bin"]
    assert footage.list_videos(videos.model_copy(update={"exclude": ["a/**"]})) == ["NA.mp4", "odd.bin"]
    written(tmp_path, CSV + "gone.mp4,,,,,,\nlost.mp4,,,,,,\n")
    with pytest.raises(UserError, match=r"videos.csv, row 4, column path: there is no gone.mp4 under .*, nor 1 others"):
        footage.list_videos(videos)
    (root / "gone.mp4").symlink_to(tmp_path / "outside.mp4")
    written(tmp_path, "path\ngone.mp4\n")
    with pytest.raises(UserError, match="is a link that leads out of videos"):
        footage.list_videos(videos)


def test_frames_of_a_shot_that_lie_in_a_stretch(tmp_path):
    listed = table.read(written(tmp_path, "path,start,end\na.mp4,1,2\na.mp4,2,3.04\na.mp4,9,\n"))["a.mp4"]
    times = np.arange(100) / 25
    assert table.runs(listed, times, 0, 100) == [(25, 50), (50, 76)]
    assert table.runs(listed, times, 30, 60) == [(30, 50), (50, 60)]
    jumps = np.concatenate([times[:40], times[:60]])  # the clock goes back
    assert table.runs(listed, jumps, 0, 100) == [(25, 40), (65, 90), (90, 100)]
