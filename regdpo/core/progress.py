"""Progress for people: a bar on a terminal, a line now and then in a log, both with an estimate of the time left."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_EVERY = 10.0
"""Seconds between lines in a log."""
ENOUGH = 3
"""Items that have to be done before the time left is told."""
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with progress on standard error."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    times: list[float] = []
    if sys.stderr.isatty():
        form = BAR if total else None
        with tqdm(desc=what, total=total, mininterval=0.5, file=sys.stderr, dynamic_ncols=True, bar_format=form) as bar:
            for item in items:
                yield item
                times.append(time.monotonic())
                bar.set_postfix_str(_left(times, total), refresh=False)
                bar.update()
        return
    said = time.monotonic()
    for item in items:
        if times and times[-1] > said + LINE_EVERY:
            said = times[-1]
            told = [f"{len(times)}/{total}" if total else f"{len(times)} done", _left(times, total)]
            print(f"{what}: {', '.join(filter(None, told))}", file=sys.stderr, flush=True)
        yield item
        times.append(time.monotonic())


def _left(times: list[float], total: int | None) -> str:
    """About how long it still takes, by the later half of what is done: what was found done already, and what the first
    item waited for (a model, say), tell nothing of those that follow.

    Args:
        times: when each item was done.
    """
    done = len(times)
    if not total or done < ENOUGH:
        return ""
    half = done // 2
    pace = (times[-1] - times[half - 1]) / (done - half)
    return f"about {duration(pace * (total - done))} left"


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
