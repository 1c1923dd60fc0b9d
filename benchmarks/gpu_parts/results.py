"""What was measured, as JSON and as a page of tables, written anew whenever there is more."""

import json
import sys
from pathlib import Path
from typing import Any

from regdpo.core.temporaries import atomic


class Results:
    """``results.json`` and ``README.md`` of a folder.

    Args:
        about: of the run: command, commit, date, budget and machine.
    """

    def __init__(self, folder: Path, about: dict[str, Any]):
        self.folder, self.about, self.parts = folder, about, list[dict[str, Any]]()
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, entry: dict[str, Any]) -> None:
        """A part's entry; it is filled in later."""
        entry["rows"] = []
        self.parts.append(entry)
        _say(f"{entry['name']}: at most {entry['limit_s']:.0f} s")
        self.write()

    def rows(self, rows: list[dict[str, Any]]) -> None:
        """All rows of the part that runs."""
        entry = self.parts[-1]
        new = rows[len(entry["rows"]) :]
        if not new:
            return
        entry["rows"] = rows
        for row in new:
            _say(f"  {', '.join(f'{key} {_cell(value)}' for key, value in row.items())}")
        self.write()

    def end(self) -> None:
        entry = self.parts[-1]
        _say(f"{entry['name']}: {entry['state']}, {entry['seconds']} s")
        self.write()

    def write(self) -> None:
        with atomic(self.folder / "results.json") as temporary:
            temporary.write_text(json.dumps({**self.about, "parts": self.parts}, indent=1))
        with atomic(self.folder / "README.md") as temporary:
            temporary.write_text(page(self.about, self.parts))


def page(about: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """The results for people."""
    lines = [f"# {about['title']}", "", f"`{about['command']}`, commit {about['commit']}, {about['date']}.", ""]
    lines += [table([about["machine"]])]
    for part in parts:
        took = f", {part['seconds']} of at most {part['limit_s']} s" if "seconds" in part else ""
        lines += [f"## {part['name']}", "", part["what"], "", f"{part['state']}{took}.", ""]
        if part["rows"]:
            lines += [table(part["rows"])]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown; a column for every key that one of them has."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(_cell(row.get(key, "")) for key in keys) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value).replace("|", "/")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
