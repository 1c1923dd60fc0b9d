"""Digests of what the stages read that is no file of the workflow: footage, sidecars, a local checkpoint.

They count by content. The process that controls a run finds them out, once, and tells its jobs (``RunFile.digests``):
so what a job reads before its work does not grow with the number of videos.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from regdpo.config.schema import Config
from regdpo.core.digests import DigestCache, file_digest, folder_digest, shard_of, text_digest
from regdpo.core.errors import UserError
from regdpo.core.packaged import place
from regdpo.core.store import DIGESTS
from regdpo.data import footage, prompt_lists, table
from regdpo.data.pair_lists import Listed, pairs_of
from regdpo.data.pair_registry import PAIR_SOURCES
from regdpo.data.sidecars import Sidecars
from regdpo.evaluate import prompts
from regdpo.rate.answers import stored
from regdpo.workflow.params import DIGEST

LARGE = 1.0
"""GB of unread videos from which on it is said that they are read."""


class Inputs:
    """Of one configuration.

    Args:
        notes: folder of what runs have found out that started no job. say: to the reader.
        known: what the controlling process found; None in that process.
    """

    def __init__(
        self, settings: Config, notes: Path, say: Callable[[str], None], known: dict[str, dict[str, str]] | None = None
    ):
        self.settings, self.say, self.known = settings, say, known
        self._notes = notes / DIGESTS, Path(settings.paths.store) / DIGESTS

    def videos(self, shard: str) -> str:
        """Of the videos of a shard; it changes with their names and bytes, and what a table says of them, alone."""
        if self.known is not None:
            return self.known["videos"][shard]
        digests: dict[str, Any] = {name: self._sources[name] for name in self._shards[int(shard)]}
        if self._listed:
            digests = {name: [digest, self._listed[name].shaping] for name, digest in digests.items()}
        return text_digest(json.dumps(digests, sort_keys=True))[:DIGEST]

    def sidecars(self, shard: str) -> str:
        """Of what is written about the videos of a shard: in text files beside them (or in ``captions.root``), or in
        the table."""
        captions = self.settings.captions
        if captions.source not in ("sidecar", "table"):
            return ""
        if self.known is not None:
            return self.known["sidecars"][shard]
        if captions.source == "table":
            return table.captions_digest(self._listed, self._shards[int(shard)])[:DIGEST]
        return self._sidecars.digest(self._shards[int(shard)])[:DIGEST] if self._sidecars else ""

    def imports(self, source: str) -> str:
        """Of a list of pairs that others made, and of the videos that it names."""
        if self.known is not None:
            return self.known["imports"][source]
        if source not in self._imports:
            try:
                rows = pairs_of(source, self.settings.pairs.sources[source])
                self._announce([half for row in rows for half in self._named(row).values()])
                found = [asdict(row) | self._halves(row) for row in rows]
                self._imports[source] = text_digest(json.dumps(found, sort_keys=True))[:DIGEST]
            except (OSError, UserError):
                return ""  # the stage tells
            finally:
                self._cache.save()
        return self._imports[source]

    def _halves(self, pair: Listed) -> dict[str, str]:
        return {"winner": "", "loser": ""} | {name: self._cache.digest(it) for name, it in self._named(pair).items()}

    def _named(self, pair: Listed) -> dict[str, Path]:
        halves = {"winner": pair.winner} if pair.label else {"winner": pair.winner, "loser": pair.loser}
        return {} if pair.reason else halves

    def _announce(self, videos: list[Path]) -> None:
        """Say so before much is read."""
        new = [path for path in videos if not self._cache.knows(path)]
        size = sum(path.stat().st_size for path in new) / 1e9
        if size > LARGE:
            self.say(
                f"reading {len(new)} videos, {size:.0f} GB, to know them by content; once, and Ctrl-C loses little"
            )

    def ratings(self) -> str:
        """Of people's answers, by what they say, not when."""
        if self.known is not None:
            return self.known["ratings"]["answers"]
        try:
            rows = stored(Path(self.settings.paths.ratings))
        except UserError:
            return ""  # the stage tells
        return text_digest(*sorted(row.model_dump_json(exclude={"when"}) for row in rows))[:DIGEST] if rows else ""

    def prompts(self, source: str) -> str:
        """Of the list of prompts of a source of pairs, if it has one."""
        listed = self.settings.pairs.ranked[source].prompts
        if not listed:
            return ""
        if self.known is not None:
            return self.known["prompts"][source]
        try:
            return text_digest(*prompt_lists.read(listed))[:DIGEST]
        except UserError:
            return ""  # refused before the first job

    def suite(self, suite: str) -> str:
        """Of the prompts of a suite, and of the images that they name."""
        if self.known is not None:
            return self.known["suites"][suite]
        if suite not in self._suites:
            vbench = self.settings.scores.vbench
            try:
                listed = prompts.file_of(suite, vbench.python, vbench.i2v_prompts)
                parts = [file_digest(listed)]
                if suite == "i2v" and vbench.images:
                    first = self.settings.clips.geometries[0]
                    crops = Path(vbench.images) / prompts.ratio_of(first.width, first.height)
                    parts.append(folder_digest(crops, self._cache))
                self._suites[suite] = text_digest(*parts)[:DIGEST]
                self._cache.save()
            except (OSError, UserError):
                return ""  # refused before the first job
        return self._suites[suite]

    def weights(self, model: str | None) -> str:
        """Of a local model's folder or file, which may change under its name; a hub name is pinned by its revision."""
        path = place(model) if model else None
        if not model or path is None or not path.exists():
            return ""
        if self.known is not None:
            return self.known["weights"].get(model, "")
        if model not in self._weights:
            whole = folder_digest(path, self._cache) if path.is_dir() else self._cache.digest(path)
            self._weights[model] = whole[:DIGEST]
            self._cache.save()
        return self._weights[model]

    @property
    def judges(self) -> list[str]:
        """The weights that shots and filters of clips need."""
        return [name for named in self.settings.clips.models.values() for name in named.values()]

    @property
    def lpips(self) -> list[str]:
        """The weights that reconstruction is measured by."""
        asked = self.settings.vae.lpips
        return list(asked.named.values()) if asked else []

    def of_measure(self, key: str) -> list[str]:
        """The weights that a measure reads, by its section's key."""
        section = self.settings.scores.judges.get(key)
        return [self.weights(name) for name in section.named.values()] if section else []

    def all(self) -> dict[str, dict[str, str]]:
        """What a run tells its jobs."""
        shards = [str(shard) for shard in range(self.settings.clips.shards)]
        generators = [it.model for it in self.settings.negatives.named.values()]
        scored = [name for section in self.settings.scores.judges.values() for name in section.named.values()]
        models = [
            self.settings.base.model,
            self.settings.captions.model,
            *generators,
            *self.judges,
            *scored,
            *self.lpips,
        ]
        return {
            "videos": {shard: self.videos(shard) for shard in shards},
            "sidecars": {shard: self.sidecars(shard) for shard in shards},
            "weights": {model: self.weights(model) for model in models if model},
            "ratings": {"answers": self.ratings()},
            "suites": {suite: self.suite(suite) for suite in self.settings.scores.vbench.suites},
            "prompts": {name: self.prompts(name) for name in self.settings.pairs.ranked},
            "imports": {
                name: self.imports(name)
                for name, it in self.settings.pairs.sources.items()
                if PAIR_SOURCES[it.kind].imported
            },
        }

    def remember(self) -> None:
        """Keep what was found out in the store too, for the stages."""
        ours, stores = self._notes
        DigestCache(stores, ours).save()

    @cached_property
    def _imports(self) -> dict[str, str]:
        return {}

    @cached_property
    def _suites(self) -> dict[str, str]:
        return {}

    @cached_property
    def _weights(self) -> dict[str, str]:
        return {}

    @cached_property
    def _cache(self) -> DigestCache:
        return DigestCache(*self._notes)

    @cached_property
    def _sources(self) -> dict[str, str]:
        """Path below the root -> SHA-256 of every video; read again only if size or time changed."""
        videos = self.settings.videos
        try:
            root = footage.footage_root(videos.root)
            names = footage.list_videos(videos)
            self._announce([root / name for name in names if not footage.refusal(root, name)])
            return footage.source_digests(videos, self._cache, names)
        except (OSError, UserError):
            return {}  # the stage tells
        finally:
            self._cache.save()

    @cached_property
    def _listed(self) -> dict[str, table.Listed]:
        """The table of videos; empty if there is none."""
        try:
            return table.listing(self.settings.videos)
        except UserError:
            return {}  # the stage tells

    @cached_property
    def _sidecars(self) -> Sidecars | None:
        """The text files, each folder of which is listed once."""
        try:
            return Sidecars(footage.footage_root(self.settings.captions.root or self.settings.videos.root), ())
        except UserError:
            return None  # the stage tells

    @cached_property
    def _shards(self) -> list[list[str]]:
        """The videos of each shard."""
        found: list[list[str]] = [[] for _ in range(self.settings.clips.shards)]
        for name in self._sources:
            found[shard_of(name, len(found))].append(name)
        return found
