"""The train stage: one arm with one seed, once per content."""

from pathlib import Path

from regdpo.config.run_file import current
from regdpo.config.stage_inputs import TrainStage
from regdpo.core import manifests
from regdpo.core.digests import canonical, file_digest, text_digest
from regdpo.core.environment import environment
from regdpo.core.model_names import ModelName
from regdpo.core.rows import LatentRow
from regdpo.core.store import Store
from regdpo.launch.launcher import train
from regdpo.launch.options import LaunchOptions
from regdpo.launch.plan_check import device_of, gpu_found, planned
from regdpo.models.spec import ModelFile
from regdpo.runs.job import EXPORT, RAN, Job, Ran


def taken(stage: TrainStage, latents: Path) -> str:
    """Digest of what a training learns from: of the rows of its sources alone, where it names some, so that another
    source changes nothing for it; else of the whole manifest."""
    if not stage.sources:
        return file_digest(latents)
    rows = [row for row in manifests.read(latents, LatentRow) if row.source_in(stage.sources)]
    return text_digest(*(row.model_dump_json() for row in rows))


def outcome(
    stage: TrainStage, name: str, model: ModelFile, latents: Path, code: str, store: Store, options: LaunchOptions
) -> ModelFile:
    """Train once per content, and describe what came out.

    Args:
        name: of the model, with its base's folder before it. code: digest of what shapes the training beside its inputs
            (code and environment).
    """
    shaped = stage.model_dump(mode="json", exclude_unset=True)  # what is empty is not there
    others = (model.digest, taken(stage, latents), code)
    key = text_digest(canonical(shaped), *others)
    shaped["settings"].pop("steps", None)
    run = store.relative("runs", key)
    export = f"{run}/{EXPORT}"
    store.has(export)  # else it is put aside, and the training goes on from its last checkpoint
    # A launcher of a Slurm job of its own is on another machine than the ranks
    device = options.device if options.scheduler == "slurm" else device_of(options.device, options.shape.each)
    job = Job(
        stage=stage,
        model=model,
        latents=str(latents.resolve()),
        store=str(store.root.resolve()),
        run=str(store.resolve(run)),
        device=device,
        parallel=options.parallel,
        micro_batch=options.micro_batch,
        checkpoint_every=options.checkpoint_every,
        eval_every=options.eval_every,
        keep=options.keep,
        deterministic=options.deterministic,
        but_for_steps=text_digest(canonical(shaped), *others),
        environment=current().environment or environment(),
        store_identity=store.expected,
    )
    if device == "cuda" and options.scheduler != "slurm" and not (Path(job.run) / EXPORT).exists():
        job = planned(job, options, *gpu_found())
    train(job, options, name)
    ran = Ran.model_validate_json(store.existing(f"{run}/{RAN}").read_text())
    weights = store.digest(export, "pretrain" if stage.objective == "pretrain" else "")
    digest = text_digest(model.ref.digest, weights)
    part = "transformer" if stage.settings.tuning == "full" else "lora"
    tuned = {part: export, f"{part}_content": weights}
    return ModelFile(
        name=name,
        ref=model.ref.model_copy(update={**tuned, "digest": digest}),
        digest=digest,
        base_digest=model.encoder,
        arm=ModelName.parse(name).arm,
        seed=stage.seed,
        objective=stage.objective,
        run=run,
        processes=options.processes,
        device=ran.device,
        hardware=ran.hardware,
        attention=ran.attention,
        codec_psnr=model.codec_psnr,
    )
