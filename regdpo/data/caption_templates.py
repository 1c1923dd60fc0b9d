"""Text files to fill in, one a video, beside a page that shows what is to be described."""

import base64
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path

import cv2

from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import ClipRow
from regdpo.core.store import Store
from regdpo.core.temporaries import atomic
from regdpo.data.names import shown
from regdpo.data.sidecars import Sidecars
from regdpo.data.video import read_stored

PAGE = "captions.html"
TALLEST = 160
"""Pixels of a thumbnail."""
PICTURES = 3
"""Of a shot."""

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Captions to write</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1.5rem; }
  h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }
  p { margin: .3rem 0; } code { overflow-wrap: anywhere; }
  img { max-width: 100%; margin: .2rem .3rem .2rem 0; vertical-align: top; border-radius: 4px; }
</style>
<h1>Captions to write</h1>
<p>Each video has a text file beside this page. Write into it what is to be seen, in the words and at the length that
the base model was trained with: for Wan a paragraph that says the subject, what it does, the setting, the camera.</p>
"""


def write(folder: Path, clips: list[ClipRow], store: Store) -> Iterator[str]:
    """Write the files and the page. A file that is there stays as it is.

    Args:
        folder: for ``captions.root``.
        clips: all accepted ones.
        store: where they are.

    Yields:
        What was done, a line each.

    Raises:
        UserError: there are no clips, one is missing from the store, or the folder cannot be written to.
    """
    if not clips:
        raise UserError(
            "no clip was accepted, so there is nothing to caption; the reasons are in results/clips.parquet"
        )
    videos: dict[str, dict[int, list[ClipRow]]] = defaultdict(lambda: defaultdict(list))
    for clip in sorted(clips, key=lambda clip: (clip.source, clip.shot, clip.start, clip.clip_id)):
        videos[clip.source][clip.shot].append(clip)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = Sidecars(folder, videos)
        written, parts = 0, [HEAD]
        for source, shots in track(videos.items(), "videos", len(videos)):
            name = files.of(source, min(shots))
            if name is None:
                name, written = files.wanted(source), written + 1
                (files.root / name).parent.mkdir(parents=True, exist_ok=True)
                (files.root / name).touch()
            text = "" if files.is_empty(name) else files.read(name)
            parts.append(_section(source, name, text, shots, store))
        with atomic(folder / PAGE) as temporary:
            temporary.write_text("".join(parts), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror})") from None
    yield f"{written} empty text files written, {len(videos) - written} videos had one"
    yield f"open {folder / PAGE} and fill the files in; they are for captions: {{source: sidecar, root: {folder}}}"


def _section(source: str, name: str, text: str, shots: dict[int, list[ClipRow]], store: Store) -> str:
    lines = [f"<h2>{escape(shown(source))}</h2>\n<p><code>{escape(shown(name))}</code> "]
    lines.append(f"says: {escape(text)}</p>\n" if text else "is empty.</p>\n")
    if len(shots) > 1:
        one = f"{name.removesuffix('.txt')}.shot{max(shots):03}.txt"
        lines.append(f"<p>It has several shots; one alone is described in <code>{escape(shown(one))}</code>.</p>\n")
    for shot, clips in shots.items():
        if len(shots) > 1:
            lines.append(f"<p>shot {shot:03}</p>\n")
        step = max(1, len(clips) // PICTURES)
        pictures = (_thumbnail(clip, store) for clip in clips[::step][:PICTURES])
        lines += [f'<img src="{picture}" alt="shot {shot:03}">\n' for picture in pictures]
    return "".join(lines)


def _thumbnail(clip: ClipRow, store: Store) -> str:
    """The middle of a clip as a ``data:`` URI."""
    frames = read_stored(store, clip.path, clip.sha256)
    picture = cv2.cvtColor(frames[len(frames) // 2], cv2.COLOR_RGB2BGR)
    if len(picture) > TALLEST:
        scale = TALLEST / len(picture)
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return f"data:image/jpeg;base64,{base64.b64encode(cv2.imencode('.jpg', picture)[1].tobytes()).decode()}"
