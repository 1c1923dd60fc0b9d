"""One caption a clip: from text files beside the footage, or from a vision-language model.

A captioner is a function of (stage, clips, store, sources) that answers one row a clip; ``CAPTIONERS`` names them. The
model's frames are decoded here and given as arrays, so transformers needs no video decoder of its own.
"""

from collections.abc import Collection
from pathlib import Path

from regdpo.config.stage_inputs import CaptionsStage
from regdpo.core.code_digest import code_digest
from regdpo.core.digests import DigestCache, folder_digest, text_digest
from regdpo.core.environment import versions
from regdpo.core.errors import UserError
from regdpo.core.progress import track
from regdpo.core.rows import CaptionRow, ClipRow
from regdpo.core.store import DIGESTS, Store
from regdpo.data.captioners import CAPTIONERS, _answers, _load
from regdpo.data.footage import footage_root, shown
from regdpo.data.sidecars import Sidecars, is_blank


def caption_shard(
    stage: CaptionsStage, clips: list[ClipRow], store: Store, sources: Collection[str] = ()
) -> list[CaptionRow]:
    """Captions of accepted clips, one row a clip, in the order of ``clips``.

    Args:
        stage: the stage's configuration.
        clips: of one shard.
        store: where a model's answers are kept.
        sources: of all accepted clips, so that a sidecar that could belong to two is told.

    Raises:
        UserError: a sidecar is missing, empty, not text or could belong to two videos; the model cannot be loaded.
    """
    return CAPTIONERS[stage.captions.source](stage, clips, store, sources)


def _sidecar(stage: CaptionsStage, clips: list[ClipRow], store: Store, sources: Collection[str]) -> list[CaptionRow]:
    """The text of each clip's shot or video (``sidecars.Sidecars``)."""
    files = Sidecars(_sidecar_root(stage), {*sources, *(clip.source for clip in clips)})
    rows: list[CaptionRow] = []
    missing: dict[str, int] = {}
    texts: dict[str, str] = {}
    for clip in clips:
        name = files.of(clip.source, clip.shot)
        if name is None:
            wanted = shown(Path(clip.source).with_suffix(".txt"))
            missing[wanted] = missing.get(wanted, 0) + 1
            continue
        if name not in texts:
            texts[name] = files.read(name)
        rows.append(CaptionRow(clip_id=clip.clip_id, caption=texts[name], captioner=f"sidecar:{shown(name)}"))
    if missing:
        files_wanted = ", ".join(sorted(missing))
        raise UserError(
            f"captions: {sum(missing.values())} of {len(clips)} clips have no caption: write {files_wanted} "
            f"(or VIDEO.shot000.txt for one shot alone) in {files.root}, or set `captions.root` or `captions.source`"
        )
    return rows


def _sidecar_root(stage: CaptionsStage) -> Path:
    try:
        return footage_root(stage.captions.root or stage.videos_root)
    except UserError as error:
        raise UserError(str(error).replace("videos.root", "captions.root") if stage.captions.root else error) from None


def _qwen_vl(stage: CaptionsStage, clips: list[ClipRow], store: Store, sources: Collection[str]) -> list[CaptionRow]:
    """Greedy answers of a Qwen vision-language model; each is kept in the store as soon as its batch is done."""
    settings = stage.captions
    assert settings.model is not None  # the configuration refuses that
    local = Path(settings.model).is_dir()
    cache = DigestCache(store.root / DIGESTS)
    identity = f"{settings.model}@{folder_digest(settings.model, cache)[:12] if local else settings.revision}"
    cache.save()
    code = code_digest("regdpo.stages.captions") + versions("torch", "transformers")
    shaped_by = (identity, settings.prompt, str(settings.frames), str(settings.max_new_tokens), code)
    kept = {clip.sha256: store.relative("captions", text_digest(clip.sha256, *shaped_by), ".txt") for clip in clips}
    by_content = {clip.sha256: clip for clip in clips}
    todo = [clip for digest, clip in by_content.items() if not store.resolve(kept[digest]).exists()]
    if todo:
        processor, model = _load(settings.model, settings.revision)
        batches = [todo[start : start + settings.batch] for start in range(0, len(todo), settings.batch)]
        for batch in track(batches, "captions"):
            for clip, caption in zip(batch, _answers(processor, model, batch, settings, store), strict=True):
                if is_blank(caption):
                    raise UserError(
                        f"captions: {identity} says nothing about clip {clip.clip_id}; change `captions.prompt`"
                    )
                with store.writing(kept[clip.sha256]) as temporary:
                    temporary.write_text(caption, encoding="utf-8")
    for relative in kept.values():
        store.digest(relative)
    texts = {digest: store.resolve(relative).read_text(encoding="utf-8") for digest, relative in kept.items()}
    return [CaptionRow(clip_id=clip.clip_id, caption=texts[clip.sha256], captioner=identity) for clip in clips]
