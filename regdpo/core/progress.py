"""Progress for people: a bar on a terminal, a line now and then in a log, both with an estimate of the time left."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY = 10.0
"""Seconds between lines in a log."""


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with progress on standard error."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, mininterval=0.5, file=sys.stderr, dynamic_ncols=True)
        return
    begun = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now > said + LINE_EVERY:
            said = now
            left = f"/{total}, about {duration((now - begun) / done * (total - done))} left" if total else " done"
            print(f"{what}: {done}{left}", file=sys.stderr, flush=True)
        yield item


def duration(seconds: float) -> str:
    """In two units at most: ``40 s``, ``12 min``, ``3 h 20 min``, ``2 days 5 h``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} days {hours % 24} h"
