"""A table of digests and of the machines on which they were seen, kept as JSON in the repository."""

from pathlib import Path
from typing import Self

from pydantic import Field

from regdpo.core import portable
from regdpo.core.section import Section
from regdpo.core.temporaries import atomic


class Table(Section):
    """Digests of what is to be the same everywhere."""

    machines: list[str] = Field([])
    """Processors (``portable.processor``) on which all of them were seen."""
    digests: dict[str, str] = Field({})

    @classmethod
    def read(cls, path: Path) -> Self:
        """An empty one, if there is none."""
        return cls.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else cls()

    def write(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def seen(self, digests: dict[str, str]) -> Self:
        """With what this machine has made: it is listed beside the others if it has made the same, else alone."""
        others = self.machines if digests == self.digests else []
        return type(self)(machines=sorted({*others, portable.processor()}), digests=digests)

    def differ(self, digests: dict[str, str]) -> str:
        """A line for each that is another one; empty if none is."""
        names = sorted({*digests, *self.digests})
        return "\n".join(
            f"{name}: {digests.get(name, 'not there')} instead of {self.digests.get(name, 'not there')}"
            for name in names
            if digests.get(name) != self.digests.get(name)
        )
