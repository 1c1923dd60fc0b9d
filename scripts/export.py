"""Write the adapters of a trained model as ComfyUI reads them; as diffusers does, they lie in the store already."""

import argparse
from pathlib import Path

from regdpo.config import command_line, run_file
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.models import adapters
from regdpo.models.registry import in_comfyui
from regdpo.models.spec import ModelFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="model.json of a training with LoRA")
    command_line.store_option(parser)
    parser.add_argument("--out", required=True, type=Path, help="the safetensors file to write")
    args = parser.parse_args()
    store = run_file.open_store(args.store)
    ref = ModelFile.read(args.model, store).ref
    if not ref.lora:
        raise UserError(f"{args.model}: has no adapters; only what was trained with LoRA can be written for ComfyUI")
    if ref.family not in in_comfyui():
        raise UserError(f"{args.model}: is a {ref.family}; ComfyUI's names are known of {', '.join(in_comfyui())}")
    adapters.save_for_comfyui(store.existing(ref.lora), ref.family, args.out)


if __name__ == "__main__":
    errors.run(main)
