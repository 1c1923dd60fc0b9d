"""Other people's lists of pairs, each format read into the same rows.

Nothing is opened here but the lists and text files: what becomes of a video says regdpo/data/halves.py. A list comes
from strangers: what it names has to lie in its root, and a row that cannot be understood is a row with its reason.
"""

import csv
import io
import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from regdpo.config.schema import PairSource
from regdpo.core.errors import UserError
from regdpo.core.rows import Label
from regdpo.data import labels as people
from regdpo.data.footage import SUFFIXES, refusal
from regdpo.data.names import shown
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.data.quotes import no_limit, refuse_names, refuse_open, text_of_lists
from regdpo.data.sidecars import LARGEST as CAPTION
from regdpo.data.sidecars import Sidecars, text_of

LARGEST = 2**30
"""Bytes of a list."""
LONGEST = 300
"""Characters of a reason, which may repeat what a list says."""
PATH = 4096
"""Characters of a path."""
SAME = "same: winner and loser are one video, so that nothing can be learned of them"
"""Reason of a pair that is none."""
SHORTEST = 1.0
"""Seconds of a clip below which VideoDPO's loader drops it before it counts."""


@dataclass(frozen=True)
class Listed:
    """A pair as a list names it."""

    name: str
    """Of the pair within its source."""
    winner: Path = Path()
    loser: Path = Path()
    caption: str = ""
    group: str = ""
    """What it shares with other pairs of the same origin, if the list says."""
    reason: str = ""
    """Why it cannot be used; empty: it may."""
    label: Label = ""
    """Of a winner that stands alone."""
    votes: str = ""
    """Of labels what each rater said, as in the manifest."""

    def rejected(self, reason: str) -> "Listed":
        """The same, without what it names."""
        return replace(self, winner=Path(), loser=Path(), label="", reason=self.reason or reason[:LONGEST])


def pairs_of(name: str, source: PairSource) -> list[Listed]:
    """The pairs that a source lists, in the order of their names.

    Args:
        name: of the source. source: where it is.

    Raises:
        UserError: the list is missing or cannot be read, names nothing that can be used, or one name twice.
    """
    try:
        found = sorted(PAIR_SOURCES[source.kind].list()(source), key=lambda row: row.name)
    except UserError as error:
        raise UserError(f"pairs.sources.{name}: {error}") from None
    if not found:
        raise UserError(f"pairs.sources.{name}: {source.path} lists no pairs")
    if all(row.reason for row in found):
        raise UserError(
            f"pairs.sources.{name}: of {len(found)} pairs in {source.path} none can be used; such as "
            f"{shown(found[0].name)}: {found[0].reason}"
        )
    for before, after in pairwise(found):
        if before.name == after.name:
            raise UserError(f"pairs.sources.{name}: {source.path} lists {shown(after.name)} twice")
    return found


def folders(source: PairSource) -> list[Listed]:
    """Videos of the same names (without their suffixes) in two folders; text files beside the winners, or in a folder
    of their own, say what is to be seen (regdpo/data/sidecars.py)."""
    winners, losers = _folder(source.path), _folder(source.losers)
    mine, others = _videos(winners), _videos(losers)
    texts = Sidecars(_folder(source.captions) if source.captions else winners, [mine[stem] for stem in mine])
    return [
        _paired(stem, mine.get(stem), others.get(stem), winners, losers, texts) for stem in sorted({*mine, *others})
    ]


def _paired(stem: str, winner: str | None, loser: str | None, winners: Path, losers: Path, texts: Sidecars) -> Listed:
    row = Listed(stem)
    if winner is None or loser is None:
        return row.rejected(f"alone: there is no {'winner' if winner is None else 'loser'} of that name")
    try:
        file = texts.of(winner, 0)
        if file is None:
            return row.rejected(f"caption: there is no text file {shown(texts.wanted(winner))}")
        row = replace(row, caption=texts.read(file))
    except UserError as error:
        return row.rejected(f"caption: {error}")
    return _placed(row, winners, winner, losers, loser)


def csv_table(source: PairSource) -> list[Listed]:
    """A CSV file in UTF-8 with a line of names first: ``winner``, ``loser``, ``caption``, and perhaps ``group``. Paths
    are below ``root``, or else below the file's folder. A pair is known by both, so that rows may be added anywhere."""
    path = Path(source.path or "")
    root = _folder(source.root) if source.root else _folder(str(path.parent))
    text = _text(path)
    refuse_open(path, io.StringIO(text, newline=""))
    needed = ("winner", "loser", "caption")
    rows = []
    with no_limit():
        lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        refuse_names(path, lines.fieldnames or [], needed, ("group",))
        for number, line in enumerate(lines, start=1):
            winner, loser, said = (line[name] for name in needed)
            if None in line or None in (winner, loser, said):
                row = Listed(f"row {number:07}")
                rows.append(row.rejected("columns: the row has another number of them than the first line"))
                continue
            row = Listed(f"{winner} > {loser}", group=line.get("group") or "")
            rows.append(_placed(_captioned(row, said), root, winner, root, loser))
    return rows


def labels(source: PairSource) -> list[Listed]:
    """What people said (regdpo/data/labels.py): of two videos the better one is the winner, a single one is labelled.
    Paths are below ``root``, or else below the file's folder."""
    path = Path(source.path or "")
    root = _folder(source.root) if source.root else _folder(str(path.parent))
    rows = []
    for verdict in people.verdicts(source):
        votes = "".join("0+-"[vote] for vote in verdict.votes)
        row = Listed(" > ".join(verdict.videos), group=verdict.group, votes=votes)
        row = _captioned(row, verdict.caption)
        if not verdict.sign:
            rows.append(row.rejected(f"tie: the votes of {len(verdict.votes)} raters cancel each other"))
            continue
        winner, loser = (*verdict.videos[:: verdict.sign if len(verdict.videos) > 1 else 1], None)[:2]
        rows.append(_placed(replace(row, label=verdict.label), root, winner, root, loser))
    return rows


def videodpo(source: PairSource) -> list[Listed]:
    """VideoDPO (github.com/CIntellifusion/VideoDPO, data/video_data.py): ``metadata.json``, a list of
    ``{"basic": {"clip_path", "clip_duration"}}``, and ``pair.json``, of ``{"video1", "video2", "frame_caption"}``.

    As its loader does: ``video1`` is preferred; both count the clips of at least a second, after shorter ones were
    dropped; the caption is the pair's, of a list the first; ``score`` weighs no pair, as with dupbeta 0, which its
    configuration has. Other than there, paths are below the folder, and a missing video takes no other's place.
    """
    root = _folder(source.path)
    long: list[dict[str, Any]] = []
    for number, clip in enumerate(_json(root / "metadata.json", list)):
        basic = clip.get("basic") if isinstance(clip, dict) else None
        if not isinstance(basic, dict) or not isinstance(basic.get("clip_duration"), int | float):
            raise UserError(f"{root / 'metadata.json'}, entry {number}: has no number as basic.clip_duration")
        if basic["clip_duration"] >= SHORTEST:
            long.append(basic)
    rows = []
    for number, pair in enumerate(_json(root / "pair.json", list)):
        row = Listed(f"{number:07}")
        ends = [pair.get(key) for key in ("video1", "video2")] if isinstance(pair, dict) else []
        named = [long[end] for end in ends if type(end) is int and 0 <= end < len(long)]
        if len(named) < 2:
            rows.append(row.rejected(f"index: video1 and video2 have to be from 0 to {len(long) - 1}, got {ends}"))
            continue
        said = pair.get("frame_caption")
        row = _captioned(row, said[0] if isinstance(said, list) and said else said)
        winner, loser = (it.get("clip_path") for it in named)
        rows.append(_placed(row, root, winner, root, loser))
    return rows


def fastvideo(source: PairSource) -> list[Listed]:
    """FastVideo (github.com/hao-ai-lab/FastVideo, docs/training/data_preprocess.md): ``videos2caption.json``, a list of
    ``{"path", "cap"}`` with paths below ``videos/``; ``cap`` is a text, or as older files have it a list, of which the
    first counts. It lists videos, not pairs: their losers have the same path below ``losers``."""
    root, losers = _folder(source.path), _folder(source.losers)
    rows = []
    for number, entry in enumerate(_json(root / "videos2caption.json", list)):
        path, said = (entry.get("path"), entry.get("cap")) if isinstance(entry, dict) else (None, None)
        row = Listed(path if isinstance(path, str) and path else f"{number:07}")
        row = _captioned(row, said[0] if isinstance(said, list) and said else said)
        rows.append(_placed(row, root / "videos", path, losers, path))
    return rows


def cosmos(source: PairSource) -> list[Listed]:
    """Cosmos-Curate (github.com/nvidia-cosmos/cosmos-curate, pipelines/video/read_write/metadata_writer_stage.py and
    docs/curator/REFERENCE_PIPELINES_VIDEO.md): ``metas/v0/UUID.json`` of ``clips/UUID.mp4`` with ``span_uuid``,
    ``source_video``, ``valid`` and ``windows``, each of ``start_frame`` and captions by model (``qwen_caption``).

    The caption is that of the window from frame 0. Clips of one ``source_video`` stay together. Its clips have no
    losers: those have the same name below ``losers``.
    """
    root, losers = _folder(source.path), _folder(source.losers)
    folder = root / "metas" / "v0"
    rows = []
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        if not name.endswith(".json"):
            continue
        row = Listed(name.removesuffix(".json"))
        if reason := refusal(folder, name) or _outside(folder / name, root):
            rows.append(row.rejected(f"list: {reason}"))
            continue
        try:
            meta = _json(folder / name, dict)
        except UserError as error:
            rows.append(row.rejected(f"list: {str(error).removeprefix(f'{folder}/')}"))
            continue
        if meta.get("valid") is False:
            rows.append(row.rejected("filtered: Cosmos-Curate says that it is not valid"))
            continue
        row = replace(row, group=str(meta.get("source_video") or ""))
        rows.append(
            _placed(_captioned(row, _first_caption(meta)), root / "clips", f"{row.name}.mp4", losers, f"{row.name}.mp4")
        )
    return rows


def _first_caption(meta: dict[str, Any]) -> Any:
    windows = meta.get("windows")
    for window in windows if isinstance(windows, list) else []:
        if isinstance(window, dict) and window.get("start_frame") == 0:
            said = [window[key] for key in sorted(window) if key.endswith("_caption") and "enhanced" not in key]
            return said[0] if said else None
    return None


def _captioned(row: Listed, said: Any) -> Listed:
    """With its caption, held to what a text file is."""
    if not isinstance(said, str):
        return row.rejected("caption: there is none")
    if len(said) > CAPTION:
        return row.rejected(f"caption: has {len(said)} characters, and may have {CAPTION}")
    try:
        return replace(row, caption=text_of(said.encode()))
    except (ValueError, UnicodeError) as error:
        return row.rejected(f"caption: {error}")


def _placed(row: Listed, winners: Path, winner: Any, losers: Path, loser: Any) -> Listed:
    """With its halves, once both may be opened."""
    found = []
    halves = (("winner", winners, winner), ("loser", losers, loser))
    for what, root, name in halves[:1] if row.label else halves:
        if not (isinstance(name, str) and name and "\0" not in name):
            return row.rejected(f"{what}: is not named")
        if len(name) > PATH:
            return row.rejected(
                f"{what}: a path of {len(name)} characters names no file; is a quote or a comma lacking?"
            )
        path = root / name
        if reason := _outside(path, root) or refusal(path.parent, path.name):
            return row.rejected(f"{what}: {shown(name)} {reason}")
        found.append(path)
    if len(found) > 1 and os.path.samefile(*found):
        return row.rejected(SAME)
    return replace(row, winner=found[0], loser=found[-1] if len(found) > 1 else Path())


def _outside(path: Path, root: Path) -> str:
    return "" if Path(os.path.realpath(path)).is_relative_to(_real(root)) else "leads out of its folder"


@lru_cache
def _real(root: Path) -> str:
    return os.path.realpath(root)


def _folder(path: str | None) -> Path:
    found = Path(path or "")
    if not path or not found.is_dir():
        raise UserError(f"there is no folder {path}")
    return found.resolve()


def _videos(root: Path) -> dict[str, str]:
    """Path without its suffix -> path, of the videos below a folder."""
    found: dict[str, str] = {}
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name).relative_to(root)
            if path.suffix.lower() in SUFFIXES:
                stem = PurePosixPath(path).with_suffix("").as_posix()
                if stem in found:
                    raise UserError(f"{root}: {shown(found[stem])} and {shown(path)} have the same name")
                found[stem] = path.as_posix()
    return found


def _text(path: Path) -> str:
    try:
        if reason := refusal(path.parent, path.name):
            raise UserError(f"{path}: {reason}")
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: has more than {LARGEST} bytes")
        return text_of_lists(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _json(path: Path, kind: type[Any]) -> Any:
    try:
        value = json.loads(_text(path))
        json.dumps(value, ensure_ascii=False).encode()  # half of a pair of surrogates is no text, nor a name
        return _value(value, kind, path)
    except UnicodeEncodeError:
        raise UserError(f"{path}: holds half of a character, as an escape such as \\ud800 is") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({str(error)[:80]})") from None


def _value(value: Any, kind: type[Any], path: Path) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"{path}: holds a {type(value).__name__} where a {kind.__name__} has to be")
    return value
