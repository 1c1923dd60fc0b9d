"""Videos of your own prompts (or first frames) by base and arms, side by side on one page that loads nothing.

    python scripts/generate.py --config my.yaml --prompts prompts.txt      # text-to-video: one prompt a line
    python scripts/generate.py --config my.yaml --images pictures/         # image-to-video: street.png, street.txt
    python scripts/generate.py --config my.yaml --prompts prompts.txt --models base sft reg_dpo/seed1 --seeds 0 1 2

Size, steps, guidance and shift are those of the samples that the report shows; where clips have several sizes, a
picture gets the one of the nearest shape and a prompt the first. What was rendered before is found in the store; Ctrl-C
loses one batch at most.
"""

import argparse
from pathlib import Path

from regdpo.config import schema, stage_inputs
from regdpo.core import errors
from regdpo.core.errors import UserError
from regdpo.core.model_names import BASE, ModelName
from regdpo.core.rows import REAL, Geometry
from regdpo.core.store import Store
from regdpo.core.temporaries import check_writable
from regdpo.models import device
from regdpo.models.spec import ModelFile
from regdpo.report import generated
from regdpo.report.examples import Video
from regdpo.sampling import own
from regdpo.sampling.render import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", required=True, help="the whole configuration (YAML) that the models were trained by"
    )
    parser.add_argument("--prompts", type=Path, help="text-to-video: a text file, one prompt a line")
    parser.add_argument(
        "--images", type=Path, help="image-to-video: a folder of pictures, each with its prompt beside it"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        help="base, ARM (its first seed) or ARM/seedN, or with another base model's folder before it, as base1/ARM; "
        "default: base and all arms",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the noise; default: 0")
    parser.add_argument(
        "--size", help="WIDTHxHEIGHT, one of those in clips.buckets; default: a picture's own, a prompt's the first"
    )
    parser.add_argument("--out", type=Path, help="the page; default: generated.html in paths.results")
    args = parser.parse_args()
    settings = schema.load(args.config)
    stage = stage_inputs.SamplesStage.model_validate(stage_inputs.SamplesStage.of(settings))
    results, store = Path(settings.paths.results), Store(settings.paths.store)
    out = args.out or results / "generated.html"
    check_writable(out.parent)
    wished = own.wishes(settings.base.task, args.prompts, args.images)
    models = {name: _model(name, results, store) for name in _names(args.models, settings)}
    asked = own.requests(wished, args.seeds, _sizes(settings.clips, args.size), stage.encode, store)
    where = device.pick(settings.launch.device)
    sampling, rendered = stage.samples.sampling, {}
    for number, (name, model) in enumerate(models.items(), start=1):
        print(f"{name}: model {number} of {len(models)}, {len(asked)} videos")
        rendered[name] = render("generated", model, asked, sampling, stage.encode, store, where)
    shown = []
    for at, wish in enumerate(wished):
        for turn, seed in enumerate(args.seeds):
            made = [(name, rendered[name][turn * len(wished) + at]) for name in models]
            label = f"{wish.name}, seed {seed}" if len(args.seeds) > 1 else wish.name
            videos = [Video(name, ModelName.parse(name).arm, video.path, video.sha256) for name, video in made]
            if first := asked[at].first_frame:
                videos.insert(0, Video("your first frame", REAL, first, asked[at].clip_sha256))
            shown.append((label, wish.prompt, asked[at].geometry, videos))
    facts = ", the same first frame" if settings.base.task == "i2v" else ""
    scale = sampling.guidance if isinstance(sampling.guidance, dict) else f"{sampling.guidance:g}"
    facts += f" and the same noise for every model, {sampling.steps} steps, guidance {scale}"
    generated.write(out, settings.report.title, facts, shown, list(settings.train.arms), stage.encode, store)
    print(f"the page: {out}")


def _sizes(clips: schema.Clips, size: str | None) -> list[Geometry]:
    """What videos may be made in."""
    found = [it for it in clips.geometries if size in (None, f"{it.width}x{it.height}")]
    if not found:
        there = ", ".join(f"{it.width}x{it.height}" for it in clips.geometries)
        raise UserError(f"--size: clips are not of {size}; there are {there}")
    return found


def _names(given: list[str] | None, settings: schema.Config) -> list[str]:
    """In full."""
    there, found = settings.models, []
    for name in given or [BASE, *settings.train.arms]:
        full = name if name in there else f"{name}/seed{settings.train.seeds[0]}"
        if full not in there:
            raise UserError(f"--models: there is no {name}; there are {', '.join(there)}")
        found.append(full)
    return list(dict.fromkeys(found))


def _model(name: str, results: Path, store: Store) -> ModelFile:
    path = results / ModelName.parse(name).file
    if not path.exists():
        raise UserError(f"{path}: is not there; `snakemake {path}` with the same --configfile makes it")
    return ModelFile.read(path, store)


if __name__ == "__main__":
    errors.run(main)
