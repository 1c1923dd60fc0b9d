"""The source videos: which there are, which shard each belongs to, what is said of them."""

import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path

from regdpo.config import schema
from regdpo.core.digests import DigestCache
from regdpo.core.errors import UserError
from regdpo.core.packaged import package_of, place
from regdpo.data import table
from regdpo.data.names import shown


def source_digests(videos: schema.Videos, cache: DigestCache, names: list[str] | None = None) -> dict[str, str]:
    """SHA-256 of every video to use, by its path below the root; empty where ``video.refusal`` says not to open it.

    Args:
        names: what ``list_videos`` found, if that is known.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    root = footage_root(videos.root)
    digests = {}
    for name in list_videos(videos) if names is None else names:
        try:
            digests[name] = "" if refusal(root, name) else cache.digest(root / name)
        except OSError as error:
            raise UserError(f"{root / name}: {error.strerror}; mend that or name it in videos.exclude") from None
    return digests


_USED = (
    "3g2 3gp asf avi divx dv f4v flv gif m2t m2ts m2v m4v mj2 mkv mov mp4 mpe mpeg mpg mts mxf ogv qt rm rmvb ts "
    "vob webm wmv y4m"
)


SUFFIXES = frozenset(f".{name}" for name in _USED.split())


_UNUSED = (
    "264 265 amv apng av1 avc avs braw crdownload crm h264 h265 hevc insv ivf lrv m3u8 mjpeg mjpg mod mpd nut obu "
    "ogm part r3d swf tod vc1 webp wtv yuv"
)


UNUSED = frozenset(f".{name}" for name in _UNUSED.split())
"""Suffixes that say video too, but one without a clock or a container, in parts, or of a single camera maker."""


def footage_root(root: str) -> Path:
    """The folder that ``videos.root`` names: a path, or ``package:NAME/FOLDER`` inside an installed package.

    The package is located, not imported.

    Raises:
        UserError: there is no such package or folder.
    """
    path = place(root)
    if path is None:
        name = package_of(root)
        raise UserError(f"videos.root: {root}: no package {name!r} is installed here; install it or name a folder")
    if not path.is_dir():
        where = "" if root == str(path.resolve()) else f" ({path.resolve()})"
        raise UserError(f"videos.root: {root}: there is no such folder{where}")
    return path.resolve()


def matches(path: str, patterns: list[str]) -> bool:
    """Whether a relative posix path matches one of the glob patterns; ``*`` crosses folders, ``**/`` may be none."""
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, pattern.replace("**/", "")) for pattern in patterns)


def list_videos(videos: schema.Videos) -> list[str]:
    """Sorted posix paths below the root of the videos to use; ``refusal`` says which of them must not be opened. Links
    to folders are not followed. A name that is not UTF-8 holds surrogates (PEP 383). With a table those that it lists.

    Raises:
        UserError: there are none, a folder cannot be listed, a file is a link that leads out of the root, or the table
            does not fit.
    """
    root = footage_root(videos.root)
    if videos.table:
        return _listed(videos, root)
    found = [name for name in _files(root) if os.path.splitext(name)[1].lower() in SUFFIXES]
    chosen = [name for name in found if _is_chosen(name, videos)]
    _stay_inside(chosen, root)
    if not chosen:
        raise UserError(
            f"no videos under {root} match include={videos.include}, exclude={videos.exclude} "
            f"({len(found)} videos lie there; suffixes looked for: {' '.join(sorted(SUFFIXES))}; "
            "links to folders are not followed)"
        )
    return chosen


def _listed(videos: schema.Videos, root: Path) -> list[str]:
    """Those of the table that are chosen; all of it have to be there."""
    listed = table.listing(videos)
    missing = [name for name in listed if not os.path.lexists(root / name)]
    if missing:
        first = min(missing, key=lambda name: listed[name].stretches[0].row)
        more = f", nor {len(missing) - 1} others that it lists" if len(missing) > 1 else ""
        row = listed[first].stretches[0].row
        raise UserError(f"{videos.table}, row {row}, column path: there is no {shown(first)} under {root}{more}")
    chosen = [name for name in listed if _is_chosen(name, videos)]
    _stay_inside(chosen, root)
    if not chosen:
        raise UserError(f"no videos of {videos.table} match include={videos.include}, exclude={videos.exclude}")
    return chosen


def _stay_inside(names: list[str], root: Path) -> None:
    inside: dict[str, bool] = {}  # folders
    for name in names:
        path = f"{root}/{name}"
        folder = path.rpartition("/")[0]
        if folder not in inside:
            inside[folder] = Path(os.path.realpath(folder)).is_relative_to(root)
        led = os.path.islink(path)
        if not (Path(os.path.realpath(path)).is_relative_to(root) if led else inside[folder]):
            raise UserError(
                f"{shown(root / name)}: is a link that leads out of videos.root; "
                "copy the video there, point videos.root at where it lies, or name it in videos.exclude"
            )


def overlooked(videos: schema.Videos) -> str:
    """One line about files that look like videos but have none of ``SUFFIXES``; empty if there are none."""
    if videos.table:
        return ""
    root = footage_root(videos.root)
    names = [name for name in _files(root) if Path(name).suffix.lower() in UNUSED and _is_chosen(name, videos)]
    if not names:
        return ""
    kinds = " ".join(sorted({Path(name).suffix.lower() for name in names}))
    return (
        f"{len(names)} files under {root} look like videos but are not used ({kinds}; such as {shown(names[0])}): "
        "put them into a container such as Matroska, or name them in videos.exclude"
    )


def refusal(root: Path, name: str) -> str:
    """Why a file below the root must not even be opened; empty if it may: it is a regular file with a name in UTF-8."""
    try:
        name.encode()
        mode = os.stat(f"{root}/{name}").st_mode
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return "" if stat.S_ISREG(mode) else "is no regular file but a pipe, a device or the like"


def _files(root: Path) -> list[str]:
    """Sorted posix paths of everything below the root that is no folder."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{shown(error.filename)}: cannot be listed ({error.strerror})")

    walk = os.walk(root, onerror=refuse)
    skip = len(os.path.join(root, ""))
    return sorted(os.path.join(folder, name)[skip:] for folder, _, names in walk for name in names)


def _is_chosen(name: str, videos: schema.Videos) -> bool:
    return matches(name, videos.include) and not matches(name, videos.exclude)
