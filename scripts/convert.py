"""Write a published checkpoint in diffusers' layout, as ``base.model`` takes it, or such a folder as it was published.

python scripts/convert.py videocrafter2 model.ckpt OUT
python scripts/convert.py t2v_turbo unet_lora.pt model.ckpt OUT
python scripts/convert.py mugv dit.pt vae.pt OUT
python scripts/convert.py back FOLDER FILE --denoiser results/weights/ARM/seed0
"""

import argparse
from pathlib import Path

from regdpo.core import errors
from regdpo.models import conversions
from regdpo.models.conversions import CONVERSIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="family", required=True)
    for name, it in CONVERSIONS.items():
        one = kinds.add_parser(name)
        for file, what in it.files.items():
            one.add_argument(file, type=Path, help=what)
        one.add_argument("out", type=Path, help="the folder to write")
        for option, (default, what) in it.options.items():
            flag = f"--{option.replace('_', '-')}"
            one.add_argument(flag, default=default, help=f"{what}; default: %(default)s")
    back = kinds.add_parser("back")
    back.add_argument("folder", type=Path, help="what this script wrote")
    back.add_argument("out", type=Path, help="the file to write; of mugv, a folder for both")
    back.add_argument(
        "--denoiser",
        type=Path,
        help="folder of a training's weights: they take the base's place, adapters are merged in",
    )
    args = parser.parse_args()
    if args.family == "back":
        conversions.run_back(args.folder, args.denoiser, args.out)
    else:
        it = CONVERSIONS[args.family]
        files = [getattr(args, file) for file in it.files]
        conversions.run(args.family, files, args.out, {option: getattr(args, option) for option in it.options})


if __name__ == "__main__":
    errors.run(main)
