"""How Snakemake and its Slurm plugin name jobs: the comment of a Slurm job is `rule_RULE_wildcards_A_B`.

A training that is a Slurm job of its own gets such a comment too, with the folder of the run behind it, since Slurm
itself knows only where its logs are.
"""

import re
from collections.abc import Iterable
from pathlib import Path

_COMMENT = re.compile(r"rule_(.*?)(?:_wildcards_(.*?))?(?: of (/.*))?", re.DOTALL)


def comment_of(rule: str, wildcards: Iterable[str], folder: Path) -> str:
    """The comment of a job that a rule's job submits itself.

    Args:
        folder: that Snakemake runs in.
    """
    values = "_".join(filter(None, wildcards))
    behind = f"_wildcards_{values}" if values else ""
    return f"rule_{rule}{behind} of {folder}"


def read_comment(comment: str) -> tuple[str, str, str]:
    """Rule, wildcards and folder of a comment; each empty where it is not told."""
    found = _COMMENT.fullmatch(comment)
    return (found[1], (found[2] or "").lstrip("_"), found[3] or "") if found else ("", "", "")


def events_of(log: str) -> Path:
    """Where the launcher of a rule with this log writes its events (regdpo/runs/events.py)."""
    return Path(log).with_suffix(".events.jsonl")
