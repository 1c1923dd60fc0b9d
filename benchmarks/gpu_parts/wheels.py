"""What benchmarks/gpu.py needs beside torch, from the project's lock: for a folder of wheels."""

import re
from pathlib import Path

NEEDED = (
    "diffusers",
    "filelock",
    "ftfy",
    "huggingface-hub",
    "numpy",
    "packaging",
    "peft",
    "psutil",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "tensorboard",
    "transformers",
)
"""What the trainer, the families and the plan import; what these need comes with them."""
OF_TORCH = {"setuptools"}
"""What every torch brings along, some with an upper limit."""
HEAD = """\
# What benchmarks/gpu.py needs beside torch, of envs/regdpo.lock. docs/how-to/environments.md says how to bring it.
"""


def requirements(lock: Path) -> str:
    """A requirements file with versions and hashes.

    torch and what it alone needs are not among them: those of the machine are left as they are.
    """
    entries = _entries(lock.read_text())
    wanted: set[str] = set()
    pending = list(NEEDED)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending += [other for other, (_, users) in entries.items() if name in users]
    assert wanted <= set(entries), f"{lock} does not lock {sorted(wanted - set(entries))}"
    return HEAD + "".join(entries[name][0] for name in sorted(wanted - OF_TORCH))


def _entries(text: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> its lines without comments, and the packages that need it."""
    entries: dict[str, tuple[str, set[str]]] = {}
    for block in re.findall(r"^[a-z0-9].*(?:\n[ ]+.*)*\n", text, re.MULTILINE):
        lines = block.splitlines(keepends=True)
        name = re.split(r"[=\[ ]", lines[0], maxsplit=1)[0]
        kept = "".join(line for line in lines if not line.lstrip().startswith("#"))
        users = {user for line in lines if line.lstrip().startswith("#") for user in re.findall(r"[a-z0-9._-]+", line)}
        before = entries.get(name, ("", set()))
        entries[name] = before[0] + kept, before[1] | users  # one for each system, perhaps
    return entries
