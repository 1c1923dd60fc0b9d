"""Progress for people: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with progress on standard error."""
    interval = 0.5 if sys.stderr.isatty() else 10.0
    yield from tqdm(items, desc=what, total=total, mininterval=interval, file=sys.stderr, dynamic_ncols=True)
