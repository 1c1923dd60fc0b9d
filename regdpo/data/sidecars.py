"""Captions in text files beside the footage: which file belongs to a video, and what it says.

The caption of ``a/b.mp4`` is ``a/b.mp4.txt`` or ``a/b.txt``, that of its third shot alone ``a/b.mp4.shot002.txt`` or
``a/b.shot002.txt``; what is more of its own goes first. Names are compared in Unicode's composed form, as some file
systems decompose them. Only regular files inside the root are opened, up to a size.
"""

import codecs
import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from regdpo.core.digests import file_digest, text_digest
from regdpo.core.errors import UserError
from regdpo.data.names import shown

LARGEST = 2**20
"""Bytes of a text file; a caption is a paragraph."""

BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\U00013441\U00013442\U0001d159")
"""Letters and symbols that show nothing: Unicode's Default_Ignorable_Code_Point among letters (Hangul's fillers), and
those with an empty glyph (Braille, hieroglyphs, music)."""

PATTERN = re.compile(r"(.+?)(?:\.shot(\d{3,}))?\.txt", re.DOTALL | re.IGNORECASE)

Named = dict[str, dict[int | None, list[str]]]
"""Text files of a folder by what they are named after (a video with or without its suffix), and the shot."""


class Sidecars:
    """The text files below a root, for some videos.

    Args:
        root: the folder that they lie in as the videos do below theirs.
        sources: paths of all videos, so that a file which could belong to two is told.
    """

    def __init__(self, root: Path, sources: Iterable[str]):
        self.root = root.resolve()
        self._folders: dict[str, Named] = {}
        self._claims: dict[tuple[str, str], set[str]] = defaultdict(set)
        for source in sources:
            folder, *names = _names(source)
            for name in names:
                self._claims[folder, name].add(source)

    def of(self, source: str, shot: int) -> str | None:
        """Path below the root of the text for a shot of a video; None if there is none.

        Raises:
            UserError: it leads out of the root, or could be another video's as well.
        """
        folder, *names = _names(source)
        there = self._listed(folder)
        for number in (shot, None):
            for name in names:
                if found := there.get(name, {}).get(number):
                    return self._only(found, self._claims[folder, name] | {source}, folder)
        return None

    def wanted(self, source: str) -> str:
        """Path below the root of a text for all shots of a video, which could belong to no other video."""
        folder, name, stem = _names(source)
        alone = len(self._claims[folder, stem] | {source}) == 1
        return PurePosixPath(folder, f"{stem if alone else name}.txt").as_posix()

    def is_empty(self, relative: str) -> bool:
        """Whether a file below the root holds nothing at all, as one does that waits to be filled in."""
        path = self.root / relative
        return not self.refusal(path) and path.stat().st_size == 0

    def digest(self, sources: Iterable[str]) -> str:
        """Of the names and bytes of all text files for some of the videos. What must not be read counts by why."""
        parts = []
        for source in sorted(sources):
            folder, *names = _names(source)
            try:
                there = self._listed(folder)
            except UserError:  # the stage tells
                continue
            for file in sorted(file for name in {*names} for files in there.get(name, {}).values() for file in files):
                path = self.root / folder / file
                try:
                    parts.append(f"{shown(file)} {self.refusal(path) or file_digest(path)}")
                except OSError as error:  # the stage tells
                    parts.append(f"{shown(file)} {error.strerror}")
        return text_digest(*parts)

    def refusal(self, path: Path) -> str:
        """Why a file must not be opened; empty if it may."""
        try:
            real = Path(os.path.realpath(path, strict=True))
            found = real.stat()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if not real.is_relative_to(self.root):
            return f"leads out of {self.root}"
        if not stat.S_ISREG(found.st_mode):
            return "is no regular file but a pipe, a device or the like"
        if found.st_size > LARGEST:
            return f"has {found.st_size} bytes, a caption has at most {LARGEST}"
        return ""

    def read(self, relative: str) -> str:
        """The text of a file below the root, its whitespace normalised.

        Raises:
            UserError: it must not be opened, or is no text.
        """
        path = self.root / relative
        if reason := self.refusal(path):
            raise UserError(f"{shown(path)}: {reason}")
        try:
            return text_of(path.read_bytes())
        except OSError as error:
            raise UserError(f"{shown(path)}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise UserError(f"{shown(path)}: {error}") from None

    def _listed(self, folder: str) -> Named:
        if folder not in self._folders:
            path = Path(os.path.realpath(self.root / folder))
            if not path.is_relative_to(self.root):
                raise UserError(f"captions: {shown(folder)} leads out of {self.root}")
            found: Named = defaultdict(lambda: defaultdict(list))
            for name in sorted(os.listdir(path)) if path.is_dir() else []:
                if match := PATTERN.fullmatch(name):
                    found[_composed(match[1])][int(match[2]) if match[2] else None].append(name)
            self._folders[folder] = found
        return self._folders[folder]

    def _only(self, files: list[str], claiming: set[str], folder: str) -> str:
        paths = [PurePosixPath(folder, file).as_posix() for file in files]
        if len(claiming) > 1:
            videos = sorted(claiming)
            raise UserError(
                f"captions: {shown(paths[0])} could belong to {' and '.join(map(shown, videos))}; "
                f"name it after one of them ({shown(videos[0])}.txt), and write one for each"
            )
        if len(paths) > 1:
            raise UserError(f"captions: {' and '.join(map(shown, paths))} are named the same; keep one of them")
        return paths[0]


def text_of(data: bytes) -> str:
    """UTF-8, or UTF-16 or UTF-32 with a byte order mark, as text on one line.

    Raises:
        ValueError: it is none, or nothing in it can be seen; the message says what to do.
    """
    marks = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}  # before UTF-16, whose mark begins the same
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((name for mark, name in marks.items() if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data:
        raise ValueError("holds null bytes, perhaps UTF-16 without its mark; save it as UTF-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
        raise ValueError(f"is not {name} text (byte {error.start}); save it as UTF-8") from None
    return one_line(text)


def one_line(text: str) -> str:
    """Text on one line.

    Raises:
        ValueError: it holds what is no text, or nothing in it can be seen; the message says what to do.
    """
    caption = " ".join(text.split())
    if found := unprintable(caption):
        raise ValueError(f"holds the character U+{ord(found):04X}, which is no text; take it out")
    if is_blank(caption):
        raise ValueError("is empty; write what the video shows, or delete the file")
    return caption


def unprintable(text: str) -> str:
    """The first character that is no text: a control, half of a pair, or one that Unicode does not assign."""
    if text.isprintable():
        return ""
    return next((char for char in text if unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs")), "")


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen."""
    return all(unicodedata.category(character)[0] in "CMZ" or character in BLANK for character in text)


def _names(source: str) -> tuple[str, str, str]:
    """Folder of a video, its name, and its name without the suffix."""
    folder, _, name = source.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return folder or ".", _composed(name), _composed(stem if dot and stem and suffix else name)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
