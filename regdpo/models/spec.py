"""A model by what shapes it, as ``model.json`` files hold it: enough to find, check and name it without loading it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regdpo.core.digests import DigestCache, folder_digest
from regdpo.core.errors import UserError, first_line
from regdpo.core.section import Section
from regdpo.core.store import DIGESTS, Store

OTHER = "its bytes are not those that its model.json names"


class ModelRef(Section):
    """Where a model is, as ``model.json`` files hold it."""

    family: str
    task: str  # i2v or t2v
    where: str  # store, folder or hub
    path: str  # below the store, of the folder, or the hub's name
    revision: str | None = None
    expert: Literal["high", "low"] | None = None  # the one that is trained, of a checkpoint with two
    fps: float = 25.0  # of the clips
    text_length: int
    digest: str  # of everything above but the expert, and of the weights
    transformer: str = ""  # below the store: a fully tuned transformer in place of the base's
    lora: str = ""  # below the store: adapters on the base's transformer
    content: str = ""  # digest of the folder's bytes; of a hub's model the revision stands for it
    transformer_content: str = ""
    vae: str = ""  # below the store: a trained autoencoder in place of the base's
    vae_content: str = ""
    lora_content: str = ""

    def location(self, store: Store) -> str:
        """The folder to give to ``from_pretrained``; of a hub model what the base stage has downloaded."""
        if self.where == "hub":
            from regdpo.runtime.hub import cached  # here, since the hub's library takes long to load

            return str(cached("base.model", self.path, self.revision))
        return str(store.existing(self.path)) if self.where == "store" else self.path

    def check_weights(self, store: Store, base: bool) -> None:
        """Hold every folder to the digest that it was named with. Trained weights are read whole; the base's are where
        path, size or time of a file are not those of its last reading.

        Args:
            base: it is the base model, not an arm.

        Raises:
            UserError: one is missing, or holds other bytes.
        """
        cache = DigestCache(store.root / DIGESTS)
        if self.content and self.where == "folder" and folder_digest(self.path, cache) != self.content:
            raise UserError(
                f"base.model: {self.path} holds other bytes than when it was read; give the same command again with "
                "--forcerun base_by_name, or put back what was there"
            )
        if self.content and self.where == "store" and folder_digest(store.existing(self.path), cache) != self.content:
            raise store.damaged(self.path, OTHER)
        cache.save()
        for path, content, of_base in (
            (self.transformer, self.transformer_content, base or self.lora),
            (self.lora, self.lora_content, base),
            (self.vae, self.vae_content, False),
        ):
            if content and folder_digest(store.existing(path)) != content:
                rule = "" if path.startswith("merged/") else "pretrain" if of_base else "train_arm"
                rule = "train_vae" if path == self.vae else rule
                raise store.damaged(path, OTHER, rule)


class ModelFile(Section):
    """A ``model.json``: the base, or the outcome of one training."""

    name: str  # base or ARM/seedN, of another base model than the first with its folder before it; or a generator's
    ref: ModelRef
    digest: str
    base_digest: str = ""  # of the base model that its trainings began with
    arm: str = ""
    seed: int = -1
    objective: str = ""
    run: str = ""  # below the store: folder with metrics.jsonl, eval.jsonl and tensorboard
    processes: int = 0
    device: str = ""
    hardware: str = ""  # processor or GPU that its numbers hold for; empty: they are portable
    attention: str = ""
    codec_psnr: float | None = None  # dB, of real clips through encode and decode; for codecs fitted here

    @property
    def encoder(self) -> str:
        """Digest of the model that encodes what it is trained on: its base."""
        return self.base_digest if self.arm else self.ref.digest

    @classmethod
    def read(cls, path: str | Path, store: Store | None = None) -> "ModelFile":
        """Read a model.json; with a store, check the weights that it names.

        Raises:
            UserError: it is missing or was not written by regdpo; weights are missing or damaged.
        """
        try:
            model = cls.model_validate(json.loads(Path(path).read_text()))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: is not a model file of regdpo ({first_line(error)})") from None
        if store is not None:
            model.ref.check_weights(store, base=not model.arm)
        return model


@dataclass(frozen=True)
class Autoencoding:
    """How the autoencoder runs; ``auto`` leaves it to the family and the device."""

    encode: Literal["auto", "fp32", "bf16"] = "auto"
    decode: Literal["auto", "fp32", "bf16"] = "auto"
    tiling: Literal["auto", "on", "off"] = "auto"
