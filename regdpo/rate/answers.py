"""The answers: an SQLite database in WAL mode to which lines are only added, and the table made of it.

Every answer is on the disk before the page is told so (``synchronous=FULL``): no kill of the server loses one. To take
one back adds a line too. What was shown is kept beside the answers, so that they stay readable when samples are gone.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from pydantic import ValidationError

from regdpo.core import manifests
from regdpo.core.errors import UserError, first_line
from regdpo.core.rows import AnswerRow
from regdpo.rate.items import Item

DATABASE, TABLE = "answers.sqlite", "answers.parquet"
"""Files of `paths.ratings`."""
VERSION = 1
TABLES = """
CREATE TABLE item (key TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, shown TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    rater TEXT NOT NULL, key TEXT NOT NULL REFERENCES item, axis TEXT NOT NULL,
    answer TEXT, left_side TEXT NOT NULL, seconds REAL, at TEXT NOT NULL, origin TEXT NOT NULL
);
CREATE INDEX event_of ON event (rater, key, axis);
CREATE TABLE secret (token TEXT NOT NULL);
"""
LATEST = """
SELECT * FROM event WHERE number IN (SELECT max(number) FROM event GROUP BY rater, key, axis) AND answer IS NOT NULL
"""
"""The answers that hold: of a rater, a thing shown and an axis the last, unless it was taken back."""
PATIENCE = 20.0
"""Seconds that one waits for another who writes."""


@dataclass(frozen=True)
class Answer:
    """One answer. ``answer`` None: it was taken back; "skip": it could not be shown."""

    rater: str
    key: str
    axis: str
    answer: str | None
    left: str = ""
    seconds: float | None = None
    at: str = ""
    origin: str = "page"


class Answers:
    """A database of answers, made if there is none.

    Raises:
        UserError: the file is something else, of a newer regdpo, or cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # it holds the key and the names of raters
        self._turn = Lock()
        self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        with self._open() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in filter(str.strip, TABLES.split(";")):
                    db.execute(statement)
                db.execute("INSERT INTO secret VALUES (?)", (secrets.token_urlsafe(24),))
                db.execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise UserError(_strange(path))
            db.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection, which threads take in turn."""
        with self._turn:
            try:
                yield self._db
            except sqlite3.DatabaseError as error:
                with suppress(sqlite3.DatabaseError):
                    self._db.execute("ROLLBACK")
                raise UserError(f"{self.path}: cannot be used as a database of answers ({error})") from None

    @property
    def token(self) -> str:
        """What the page has to know, the same at every start, so that a link stays good."""
        with self._open() as db:
            (found,) = db.execute("SELECT token FROM secret").fetchone()
            return str(found)

    def names(self, items: Iterable[Item]) -> dict[str, str]:
        """Key -> the name under which the page knows an item, drawn by chance when it is first shown."""
        items = list(items)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            drawn = [(item.key, secrets.token_hex(8), item.model_dump_json()) for item in items]
            db.executemany("INSERT OR IGNORE INTO item VALUES (?, ?, ?)", drawn)
            db.execute("COMMIT")
            known = {row["key"]: row["name"] for row in db.execute("SELECT key, name FROM item")}
        return {item.key: known[item.key] for item in items}

    def add(self, answers: Iterable[Answer]) -> int:
        """Add answers, all or none; those that are there with the same time are not added again. How many were."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            added = 0
            for it in answers:
                values = (it.rater, it.key, it.axis, it.answer, it.left, it.seconds, it.at or now(), it.origin)
                added += db.execute(
                    "INSERT INTO event (rater, key, axis, answer, left_side, seconds, at, origin) "
                    "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE NOT EXISTS (SELECT 1 FROM event WHERE "
                    "rater = ?1 AND key = ?2 AND axis = ?3 AND at = ?7 AND origin = ?8)",
                    values,
                ).rowcount
            db.execute("COMMIT")
            return added

    def given(self, rater: str) -> dict[str, dict[str, str]]:
        """Key -> axis -> answer of one rater, the latest last."""
        found: dict[str, dict[str, str]] = {}
        with self._open() as db:
            for row in db.execute(f"SELECT * FROM ({LATEST}) WHERE rater = ? ORDER BY number", (rater,)):  # noqa: S608
                of = found.pop(row["key"], {})
                found[row["key"]] = {**of, row["axis"]: row["answer"]}
        return found

    def rows(self) -> list[AnswerRow]:
        """All answers that hold, as the table has them. What was left out because it could not be shown is in none."""
        with self._open() as db:
            return _rows(db)


def stored(folder: Path) -> list[AnswerRow]:
    """The answers that hold in a folder of ratings: those of its database, or where there is none those of its table.
    Nothing is written, and a page that is being served is not disturbed.

    Raises:
        UserError: the file is something else, of a newer regdpo, or damaged.
    """
    path = folder / DATABASE
    if not path.exists():
        return manifests.read(folder / TABLE, AnswerRow) if (folder / TABLE).exists() else []
    # Without a log beside it nobody is writing, and to read it leaves no files of SQLite's behind.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(os.path.abspath(path))}?{how}", PATIENCE, uri=True)) as db:
            db.row_factory = sqlite3.Row
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise UserError(_strange(path))
            return _rows(db)
    except (sqlite3.DatabaseError, ValidationError) as error:
        raise UserError(f"{path}: cannot be used as a database of answers ({first_line(error)})") from None


def rater_name(name: str) -> str:
    """A name as it is kept.

    Raises:
        ValueError: it is empty, too long, or holds what cannot be printed.
    """
    name = " ".join(name.split())
    if not name or not name.isprintable() or len(name) > 60 or "|" in name:
        raise ValueError("a rater's name has 1 to 60 characters that can be printed, and no |")
    return name


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _strange(path: Path) -> str:
    return f"{path}: is not a database of answers that this regdpo can read; set `paths.ratings`"


def _rows(db: sqlite3.Connection) -> list[AnswerRow]:
    shown = {row["key"]: Item.model_validate_json(row["shown"]) for row in db.execute("SELECT * FROM item")}
    events = db.execute(f"SELECT * FROM ({LATEST}) WHERE answer != 'skip'").fetchall()  # noqa: S608
    return [_row(event, shown[event["key"]]) for event in events]


def _row(event: sqlite3.Row, item: Item) -> AnswerRow:
    b = item.b
    return AnswerRow(
        answer_id=f"{event['rater']}|{item.key[:24]}|{event['axis']}",
        form=item.form,
        rater=event["rater"],
        axis=event["axis"],
        prompt_id=item.prompt_id,
        caption=item.caption,
        task=item.task,
        arm_a=item.a.arm,
        arm_b=b.arm if b else "",
        model_a=item.a.model,
        model_b=b.model if b else "",
        seed=item.seed,
        path_a=item.a.path,
        path_b=b.path if b else "",
        sha256_a=item.a.sha256,
        sha256_b=b.sha256 if b else "",
        answer=event["answer"],
        left=event["left_side"],
        gold=item.gold,
        repeat=item.repeat,
        when=event["at"],
        seconds=event["seconds"],
        origin=event["origin"],
    )
