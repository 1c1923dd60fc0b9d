"""Score samples without weights: PSNR and SSIM to the real continuation, motion, sharpness."""

import argparse

from regdpo.config import command_line, run_file
from regdpo.core import errors, manifests
from regdpo.core.rows import SampleRow, ScoreRow
from regdpo.evaluate import proxies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.store_option(parser)
    parser.add_argument("--samples", required=True, help="manifest of the samples stage")
    parser.add_argument("--out", required=True, help="the scores to write")
    args = parser.parse_args()
    manifests.write(
        args.out, proxies.score(manifests.read(args.samples, SampleRow), run_file.open_store(args.store)), ScoreRow
    )


if __name__ == "__main__":
    errors.run(main)
