"""Make clips.png, pairs.png and report.png anew from a finished run of the embedded default; chromium takes the pages'.

The clips are not chosen by what they look like: the pair is the middle one of the training split, the held-out clip the
middle one of those that samples were made of. From the folder of the run:

    make demo
    .venv/bin/python docs/images/make.py
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from regdpo.core import manifests  # noqa: E402
from regdpo.core.rows import PairRow, SampleRow  # noqa: E402
from regdpo.core.store import Store  # noqa: E402
from regdpo.data.video import read_stored  # noqa: E402

FRAMES = (0, 2, 4, 6, 8)
SIDE, GAP, LEFT, TEXT = 112, 6, 320, 17
WIDTH, HEIGHT = 1280, 2120
"""Of a page's picture: as wide as a laptop's window, as high as the verdict, the curves and some examples."""
SHOWN = {
    "base": "base",
    "sft/seed0": "after SFT",
    "reg_dpo/seed0": "after Reg-DPO, r = DGR",
    "ddo/seed0": "after SFT, then DDO",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--store", default="store")
    args = parser.parse_args()
    store, folder = Store(args.store), Path(__file__).parent
    shot((args.results / "clips.html").resolve().as_uri(), folder / "clips.png", 2000)
    rows = pair(args.results, store) + held_out(args.results, store)
    montage(rows).quantize(256).save(folder / "pairs.png", optimize=True)
    page = (args.results / "report/index.html").resolve().as_uri()
    shot(page, folder / "report.png")


def pair(results: Path, store: Store) -> list[tuple[str, np.ndarray]]:
    """Labels and frames of a training pair."""
    found = [row for row in manifests.read(results / "pairs.parquet", PairRow) if row.split == "train"]
    one = found[len(found) // 2]
    return [
        ("winner of a pair: filmed", read_stored(store, one.winner, one.winner_sha256)),
        ("loser: the base's, from the same\nfirst frame and caption", read_stored(store, one.loser, one.loser_sha256)),
    ]


def held_out(results: Path, store: Store) -> list[tuple[str, np.ndarray]]:
    """Labels and frames of a clip that no training had."""
    samples = {name: manifests.read(results / f"samples/{name}.parquet", SampleRow) for name in SHOWN}
    clips = sorted({row.clip_id for row in samples["base"]})
    middle = clips[len(clips) // 2]
    chosen = {name: next(row for row in rows if row.clip_id == middle) for name, rows in samples.items()}
    real = chosen["base"]
    return [
        ("a held-out clip: filmed", read_stored(store, real.real, real.real_sha256)),
        *((f"the same, {SHOWN[name]}", read_stored(store, row.path, row.sha256)) for name, row in chosen.items()),
    ]


def montage(rows: list[tuple[str, np.ndarray]]) -> Image.Image:
    """A row of frames for each, its label on the left."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), TEXT)
    step = SIDE + GAP
    picture = Image.new("RGB", (LEFT + step * len(FRAMES), step * len(rows) + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for number, (label, frames) in enumerate(rows):
        top = GAP + step * number
        draw.multiline_text((GAP, top + SIDE / 2), label, fill="black", font=font, anchor="lm", spacing=6)
        for column, frame in enumerate(FRAMES):
            scaled = Image.fromarray(frames[frame]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.paste(scaled, (LEFT + step * column, top))
    return picture


def shot(page: str, path: Path, height: int = HEIGHT) -> None:
    """The top of a page, in few colours."""
    subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{height}",
         f"--screenshot={path}", page],
        check=True, capture_output=True,
    )  # fmt: skip
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
