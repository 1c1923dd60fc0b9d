"""Make a model wider without changing what it computes, so that a large one goes on where a small one has come to.

The grown model has more heads of the same width and some times^2 as many weights; its outputs differ by rounding alone.
Without noise all copies of a hidden channel have the same gradients too, and stay copies; --noise makes those differ,
without a change of the function (in bf16: but for the rounding of the weights).

    python scripts/grow.py Wan2.1-T2V-1.3B-Diffusers Wan-grown --noise 0.02
    python scripts/grow.py results/base/model.json base-grown   # what the embedded default has trained as its base
    python scripts/grow.py wan21_t2v_1_3b                       # without OUT: how large it would be

OUT is a checkpoint in diffusers' layout, to be named as base.model; grown.json in it says what it was made from.
"""

import argparse
import json
from pathlib import Path

from regdpo.config import command_line, run_file
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.core.temporaries import check_writable
from regdpo.models import growth
from regdpo.models.checkpoint_json import known, read_json
from regdpo.models.spec import ModelFile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model",
        help="folder of a checkpoint in diffusers' layout, or of its transformer alone; model.json of a base or of a "
        "full tuning; without OUT also a name of config/architectures",
    )
    parser.add_argument("out", nargs="?", type=Path, help="the folder to write; without it only sizes are told")
    parser.add_argument("--times", type=int, default=2, help="what the width is multiplied by; default: %(default)s")
    parser.add_argument(
        "--noise",
        type=float,
        default=0.0,
        help="standard deviation of what is added to a matrix's entries, as a part of theirs; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise; default: %(default)s")
    command_line.store_option(parser)
    args = parser.parse_args()
    asked = growth.Asked(args.times, args.noise, args.seed)
    if args.out is None:
        found = _sizes(args, asked)
    else:
        check_writable(args.out.parent)
        parts = growth.grow_checkpoint(*_located(args), args.out, asked)["parts"]
        found = {str(args.out / part): (it["parameters_before"], it["parameters"]) for part, it in parts.items()}
    for name, (before, after) in found.items():
        print(f"{name}: {before:,} parameters before, {after:,} after")


def _sizes(args: argparse.Namespace, asked: growth.Asked) -> dict[str, tuple[int, int]]:
    """Parameters before and after, of each denoiser."""
    if args.model in known():
        config = json.loads(known()[args.model].read_text())["files"]["transformer/config.json"]
        return {args.model: growth.sizes(args.model, config, asked)}
    source, tuned = _located(args)
    folders = growth.denoisers(source) | tuned
    return {str(it): growth.sizes(str(it), read_json(it / growth.CONFIG), asked) for it in folders.values()}


def _located(args: argparse.Namespace) -> tuple[Path, dict[str, Path]]:
    """The folder of the checkpoint, and those of denoisers that were tuned in the place of its own."""
    path = Path(args.model)
    if path.is_dir():
        return path, {}
    if not path.is_file():
        raise UserError(f"{path}: there is no such folder, and no such model.json")
    store = run_file.open_store(args.store)
    ref = ModelFile.read(path, store).ref
    if ref.lora:
        raise UserError(f"{path}: has adapters, which do not grow; take what scripts/merged.py makes of it")
    tuned = {"transformer_2" if ref.expert == "low" else "transformer": store.existing(ref.transformer)}
    return Path(ref.location(store)), tuned if ref.transformer else {}


if __name__ == "__main__":
    errors.run(main)
