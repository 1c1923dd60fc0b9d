"""The merged stage: adapters of a trained model become part of its weights, for the next step of a chain."""

import torch

from regdpo.core.code_digest import code_digest
from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models.family import open_family
from regdpo.models.spec import ModelFile


def merged(model: ModelFile, store: Store) -> ModelFile:
    """The same model with a denoiser in the place of adapters, written to the store once.

    Raises:
        UserError: it has no adapters, or they do not fit.
    """
    if not model.ref.lora:
        raise UserError(f"model {model.name}: has no adapters to merge")
    path = store.relative("merged", text_digest(model.ref.digest, code_digest(__name__)))
    if not store.has(path):
        family = open_family(model.ref, store, torch.device("cpu"))
        with store.writing(path) as folder:
            folder.mkdir()
            family.merge_adapters(folder)
    content = store.digest(path)
    digest = text_digest(model.ref.digest, content)
    weights = {"transformer": path, "transformer_content": content, "lora": "", "lora_content": ""}
    return model.model_copy(
        update={"ref": model.ref.model_copy(update={**weights, "digest": digest}), "digest": digest}
    )
