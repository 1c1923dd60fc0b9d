"""Other people's lists of pairs: what each format says, and what is not in its folder."""

import json
from pathlib import Path

import pytest

from regdpo.config import schema
from regdpo.core.errors import UserError
from regdpo.data import pair_lists


def listed(kind: str, **keys: object):
    source = schema.PairSource(kind=kind, **{key: str(value) for key, value in keys.items()})
    return pair_lists.pairs_of("mine", source)


def told(rows) -> list[tuple[str, str, str, str, str]]:
    """Name, caption, group and the halves' names, or the reason."""
    return [
        (row.name, row.caption, row.group, row.winner.name, row.loser.name)
        if not row.reason
        else (row.name, row.reason)
        for row in rows
    ]


def empty(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_two_folders_are_paired_by_name(tmp_path):
    good = empty(tmp_path / "good", "a.mp4", "sub/b.mov", "c.mp4", "d.mp4", "notes.md")
    bad = empty(tmp_path / "bad", "a.webm", "sub/b.mp4", "d.mp4", "e.mp4")
    (good / "a.txt").write_bytes("\ufeffa  dog\n".encode())
    (good / "sub/b.txt").write_text("a cat", encoding="utf-16")
    (good / "d.txt").write_bytes(b"x\x07")
    assert told(listed("folders", path=good, losers=bad)) == [
        ("a", "a dog", "", "a.mp4", "a.webm"),
        ("c", "alone: there is no loser of that name"),
        ("d", f"caption: {good}/d.txt: holds the character U+0007, which is no text; take it out"),
        ("e", "alone: there is no winner of that name"),
        ("sub/b", "a cat", "", "b.mov", "b.mp4"),
    ]
    empty(good, "a.mkv")
    with pytest.raises(UserError, match=r"^pairs\.sources\.mine: .*a\.mkv and a\.mp4 have the same name"):
        listed("folders", path=good, losers=bad)


def test_a_csv_file(tmp_path):
    empty(tmp_path, "v/1 a.mp4", "v/$(touch x).mp4", "secret.mp4")
    (tmp_path / "v/out.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "v/loose.mp4").symlink_to(tmp_path / "nowhere.mp4")
    rows = [
        "loser,winner,caption,group,note",
        '1 a.mp4,$(touch x).mp4,"a dog,\nruns",film,x',
        "1 a.mp4,../secret.mp4,a,,",
        f"{tmp_path}/v/1 a.mp4,{tmp_path}/v/$(touch x).mp4,whole paths,,",
        "1 a.mp4,./1 a.mp4,the same,,",
        "1 a.mp4,out.mp4,a,,",
        "1 a.mp4,loose.mp4,a,,",
        "1 a.mp4,none.mp4,a,,",
        "1 a.mp4,1 a.mp4, ,,",
        f"1 a.mp4,{'x' * 200_000},long,,",
        "1 a.mp4",
        ",1 a.mp4,a,,",
        "1 a.mp4,1 a.mp4,a,,,more",
    ]
    (tmp_path / "v/pairs.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = {row[0].removesuffix(" > 1 a.mp4"): row[1:] for row in told(listed("csv", path=tmp_path / "v/pairs.csv"))}
    assert found == {
        "$(touch x).mp4": ("a dog, runs", "film", "$(touch x).mp4", "1 a.mp4"),
        "../secret.mp4": ("winner: ../secret.mp4 leads out of its folder",),
        f"{tmp_path}/v/$(touch x).mp4 > {tmp_path}/v/1 a.mp4": ("whole paths", "", "$(touch x).mp4", "1 a.mp4"),
        "./1 a.mp4": ("same: winner and loser are one video, so that nothing can be learned of them",),
        "out.mp4": ("winner: out.mp4 leads out of its folder",),
        "loose.mp4": ("winner: loose.mp4 leads out of its folder",),
        "none.mp4": ("winner: none.mp4 cannot be opened (No such file or directory)",),
        "1 a.mp4": ("caption: is empty; write what the video shows, or delete the file",),
        "row 0000010": ("columns: the row has another number of them than the first line",),
        "1 a.mp4 > ": ("loser: is not named",),
        "x" * 200_000: ("winner: a path of 200000 characters names no file; is a quote or a comma lacking?",),
        "row 0000012": ("columns: the row has another number of them than the first line",),
    }
    elsewhere = told(listed("csv", path=tmp_path / "v/pairs.csv", root=tmp_path))
    assert ("../secret.mp4 > 1 a.mp4", "winner: ../secret.mp4 leads out of its folder") in elsewhere
    for content, said in (
        (b"winner,loser\n", r"has no column caption; its columns are winner, loser"),
        (b"winner,loser,caption\n", "lists no pairs"),
        (b"winner,loser,caption\nx.mp4,y.mp4,a\n", r"none can be used; such as x.mp4 > y.mp4: winner: "),
        (b"winner,winner,loser,caption\na,b,c,d\n", "has 2 columns winner"),
        (b"a\x1b[31m,b\n", r"its columns are a.x1b\[31m, b"),
        ("winner,loser,caption\n".encode("utf-16"), "line 1: is not text in UTF-8; save the file as UTF-8"),
        (
            b'winner,loser,caption\nx,y,"z\nz"\n\na,b,"c\nd,e,f\n',
            "row 2, which begins in line 5: a quote is not closed",
        ),
        (b"winner,loser,caption\na,b," + b"x" * 200_000, "none can be used; such as a > b: winner: a cannot be opened"),
    ):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(UserError, match=rf"^pairs\.sources\.mine: .*bad\.csv.*{said}") as caught:
            listed("csv", path=tmp_path / "bad.csv")
        assert str(caught.value).isprintable()


def test_videodpo_counts_clips_after_short_ones_were_dropped(tmp_path):
    """Its traps: index 1 means clip 2 here; the caption is the pair's, of a list the first; the metadata's is not used."""
    empty(tmp_path, *(f"c{number}.mp4" for number in range(4)))
    durations = [2.0, 0.99, 1.0, 5]
    metadata = [
        {"basic": {"clip_path": f"c{n}.mp4", "clip_duration": d}, "misc": {"frame_caption": ["not this"]}}
        for n, d in enumerate(durations)
    ]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    made = [
        {"video1": 0, "video2": 1, "frame_caption": ["a dog", "other"], "score": 0.4},
        {"video1": 2, "video2": 0, "frame_caption": "a cat"},
        {"video1": 3, "video2": 0, "frame_caption": "a cat"},
        {"video1": True, "video2": 0, "frame_caption": "a cat"},
        {"video1": -1, "video2": 0, "frame_caption": "a cat"},
        {"video1": 0, "video2": 1},
        7,
        {"video1": ["x" * 9000], "video2": {"a": 1}, "frame_caption": "a cat"},
    ]
    (tmp_path / "pair.json").write_text(json.dumps(made))
    *found, (_, reason) = told(listed("videodpo", path=tmp_path))
    assert len(reason) == 300
    assert found == [
        ("0000000", "a dog", "", "c0.mp4", "c2.mp4"),
        ("0000001", "a cat", "", "c3.mp4", "c0.mp4"),
        ("0000002", "index: video1 and video2 have to be from 0 to 2, got [3, 0]"),
        ("0000003", "index: video1 and video2 have to be from 0 to 2, got [True, 0]"),
        ("0000004", "index: video1 and video2 have to be from 0 to 2, got [-1, 0]"),
        ("0000005", "caption: there is none"),
        ("0000006", "index: video1 and video2 have to be from 0 to 2, got []"),
    ]
    for content, said in (
        ('["\\ud800"]', "holds half of a character"),
        ("[", "is not JSON"),
        ("{}", "holds a dict where a list"),
        ("[" * 100_000, "is not JSON"),
    ):
        (tmp_path / "pair.json").write_text(content)
        with pytest.raises(UserError, match=rf"^pairs\.sources\.mine: .*pair\.json: {said}"):
            listed("videodpo", path=tmp_path)
    (tmp_path / "metadata.json").write_text(json.dumps([metadata[0], {"basic": {"clip_path": "c1.mp4"}}]))
    with pytest.raises(UserError, match=r"metadata\.json, entry 1: has no number as basic\.clip_duration"):
        listed("videodpo", path=tmp_path)


def test_fastvideo_lists_winners_and_losers_have_their_names(tmp_path):
    empty(tmp_path, "d/videos/a.mp4", "d/videos/b/c.mp4", "l/a.mp4", "l/b/c.mp4")
    old = {"path": "b/c.mp4", "cap": ["a cat", "x"], "resolution": {"width": 8, "height": 8}, "fps": 8.0, "duration": 1}
    new = {"path": "a.mp4", "cap": "a dog"}
    (tmp_path / "d/videos2caption.json").write_text(json.dumps([old, new, {"path": "../a.mp4", "cap": "x"}, None]))
    assert told(listed("fastvideo", path=tmp_path / "d", losers=tmp_path / "l")) == [
        ("../a.mp4", "winner: ../a.mp4 leads out of its folder"),
        ("0000003", "caption: there is none"),
        ("a.mp4", "a dog", "", "a.mp4", "a.mp4"),
        ("b/c.mp4", "a cat", "", "c.mp4", "c.mp4"),
    ]


def test_cosmos_curates_clips_stay_with_their_video(tmp_path):
    def meta(name: str, **values) -> None:
        path = tmp_path / "o/metas/v0" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        first = {"start_frame": 0, "end_frame": 256, "qwen_caption": f"clip {name}", "qwen_lm_enhanced_caption": "no"}
        later = {"start_frame": 256, "end_frame": 300, "qwen_caption": "later"}
        fixed = {"span_uuid": name, "source_video": "s3://film.mp4", "valid": True, "windows": [later, first]}
        path.write_text(json.dumps(fixed | values))

    empty(tmp_path, *(f"{folder}/{name}.mp4" for folder in ("o/clips", "l") for name in "abc"))
    meta("a")
    meta("b", valid=False)
    meta("c", windows=[])
    meta("d")
    (tmp_path / "o/metas/v0/e.json").write_text("{")
    *found, (last, reason) = told(listed("cosmos", path=tmp_path / "o", losers=tmp_path / "l"))
    assert last == "e"
    assert reason.startswith("list: e.json: is not JSON (")
    assert found == [
        ("a", "clip a", "s3://film.mp4", "a.mp4", "a.mp4"),
        ("b", "filtered: Cosmos-Curate says that it is not valid"),
        ("c", "caption: there is none"),
        ("d", "winner: d.mp4 cannot be opened (No such file or directory)"),
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "folders", "path": "a"}, "needs `losers`"),
        ({"kind": "videodpo", "path": "a", "losers": "b"}, "reads no `losers`"),
        ({"kind": "gt", "path": "a"}, "reads no `path`"),
    ],
)
def test_a_source_is_given_what_its_kind_needs(values, said):
    with pytest.raises(ValueError, match=said):
        schema.PairSource(**values)
