"""The train_vae stage: a video autoencoder, once per content, and where people find it."""

from pathlib import Path

from regdpo.config.run_file import current
from regdpo.config.stage_inputs import TrainVaeStage
from regdpo.core.digests import canonical, file_digest, text_digest
from regdpo.core.environment import environment
from regdpo.core.packaged import weights_file
from regdpo.core.store import Store
from regdpo.core.temporaries import link_or_copy
from regdpo.launch.launcher import train
from regdpo.launch.options import LaunchOptions
from regdpo.launch.plan_check import device_of
from regdpo.models.spec import ModelFile
from regdpo.runs.job import EXPORT, RAN, Ran, VaeJob

RULE = "train_vae"


def outcome(
    stage: TrainVaeStage,
    name: str,
    model: ModelFile,
    clips: Path,
    places: Path,
    code: str,
    store: Store,
    options: LaunchOptions,
) -> ModelFile:
    """Train once per content, and describe what came out: the model with this autoencoder.

    Args:
        name: of the outcome. clips, places: manifests of clips and their splits.
        code: digest of what shapes the training beside its inputs (code and environment).
    """
    shaped = stage.model_dump(mode="json", exclude_unset=True, exclude={"lpips"})
    lpips = stage.lpips.named if stage.lpips else {}
    read = [clips, places, *(weights_file(f"vae.lpips.{name}", path) for name, path in lpips.items())]
    key = text_digest(canonical(shaped), model.digest, *map(file_digest, read), code)
    run = store.relative("runs", key)
    export = f"{run}/{EXPORT}"
    store.has(export)  # else it is put aside, and the training goes on from its last checkpoint
    job = VaeJob(
        stage=stage,
        model=model,
        clips=str(clips.resolve()),
        places=str(places.resolve()),
        store=str(store.root.resolve()),
        run=str(store.resolve(run)),
        device=options.device if options.scheduler == "slurm" else device_of(options.device, options.shape.each),
        checkpoint_every=options.checkpoint_every,
        eval_every=options.eval_every,
        keep=options.keep,
        deterministic=options.deterministic,
        environment=current().environment or environment(),
        store_identity=store.expected,
    )
    train(job, options, f"{name} autoencoder of {model.name}")
    ran = Ran.model_validate_json(store.existing(f"{run}/{RAN}").read_text())
    weights = store.digest(export, RULE)
    digest = text_digest(model.ref.digest, weights)
    return ModelFile(
        name=name,
        ref=model.ref.model_copy(update={"vae": export, "vae_content": weights, "digest": digest}),
        digest=digest,
        run=run,
        processes=options.processes,
        device=ran.device,
        hardware=ran.hardware,
    )


def show(model: ModelFile, store: Store, folder: Path) -> None:
    """Have the autoencoder's files in a folder, as hard links where the file system has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(store.existing(model.ref.vae).iterdir()):
        (folder / path.name).unlink(missing_ok=True)
        link_or_copy(path, folder / path.name)
