"""How a trained model is loaded in diffusers: lines of Python for people, who need nothing of ours to run them."""

from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelRef

BF16 = "torch.bfloat16"


def lines(ref: ModelRef, weights: str, base: str, tuned: str = "") -> str:
    """Lines after which ``pipe`` is the base's pipeline with what was trained.

    Args:
        ref: of the trained model.
        weights: folder of the adapters, or of the tuned transformer.
        base: folder of the base's checkpoint, or its name on the hub.
        tuned: folder of the base's transformer, where adapters stand on one that was tuned in full.
    """
    family = FAMILIES[ref.family]
    if family.denoiser:
        return _of_ours(family.denoiser, ref, weights, base, tuned)
    pipeline = family.pipelines.get(ref.task, "DiffusionPipeline")
    part = "transformer_2" if ref.expert == "low" else "transformer"
    dtype = f'{{"default": {BF16}, "vae": torch.float32}}' if family.fp32_decoder else BF16
    given = [_quoted(base)]
    if ref.revision:
        given.append(f"revision={_quoted(ref.revision)}")
    loaded = []
    if transformer := tuned if ref.lora else weights:
        loaded = [f"{part} = AutoModel.from_pretrained({_quoted(transformer)}, dtype={BF16})"]
        given.append(f"{part}={part}")
    given.append(f"dtype={dtype}")
    if ref.lora:
        into = ", load_into_transformer_2=True" if ref.expert == "low" else ""
        adapters = [f"pipe.load_lora_weights({_quoted(weights)}{into})"]
    else:
        adapters = []
    names = [pipeline] if not loaded else sorted(["AutoModel", pipeline])
    return "\n".join(
        [
            "import torch",
            f"from diffusers import {', '.join(names)}",
            "",
            *loaded,
            f"pipe = {pipeline}.from_pretrained(",
            *(f"    {argument}," for argument in given),
            ")",
            *adapters,
        ]
    )


def _of_ours(denoiser: str, ref: ModelRef, weights: str, base: str, tuned: str) -> str:
    """Lines after which ``denoiser`` is the trained one, of a class of ours."""
    module, _, name = denoiser.partition(":")
    whole = [tuned] if tuned else [base] if ref.lora else [weights]
    folder = ", ".join([_quoted(whole[0]), *(['subfolder="transformer"'] if whole == [base] else [])])
    loaded = [f"denoiser = {name}.from_pretrained({folder})"]
    if ref.lora:
        given = f'{_quoted(weights)}, weight_name="pytorch_lora_weights.safetensors"'
        loaded.append(f"denoiser.load_lora_adapter({given})")
    return "\n".join([f"from {module} import {name}", "", *loaded])


def video_lines(ref: ModelRef, frames: int, height: int, width: int) -> str:
    """Lines that make a video of the size that was trained on with ``pipe``, and write it to ``video.mp4``."""
    names = ["export_to_video"]
    given = ['prompt="What the video shows"', f"num_frames={frames}", f"height={height}", f"width={width}"]
    if ref.task == "i2v":
        names.append("load_image")
        given.insert(0, 'image=load_image("first_frame.png")')
    if FAMILIES[ref.family].told_rate:
        given.append(f"frame_rate={ref.fps:g}")
    given.append(f"max_sequence_length={ref.text_length}")
    return "\n".join(
        [
            f"from diffusers.utils import {', '.join(names)}",
            "",
            "video = pipe(",
            *(f"    {argument}," for argument in given),
            ").frames[0]",
            f'export_to_video(video, "video.mp4", fps={ref.fps:g})',
        ]
    )


def _quoted(text: str) -> str:
    return f'"{text}"' if text.isprintable() and not set('"\\') & set(text) else repr(text)
