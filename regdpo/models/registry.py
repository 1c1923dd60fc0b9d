"""Model families: everything that is particular to one architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from regdpo.models import original_names, sizes


@dataclass(frozen=True)
class Declaration:
    """All that is said of a family outside its own module."""

    family: str  # ``module:class``
    cut: sizes.Cut | None = None  # which sizes it takes; without, that is asked once the checkpoint is there
    original_names: Mapping[str, str] | None = None  # by which ComfyUI knows its layers, if it does
    pipelines: Mapping[str, str] = field(default_factory=dict)  # task -> class that model_index.json names; else any
    fp32_decoder: bool = False  # the autoencoder is to decode in fp32 beside a denoiser in bf16
    told_rate: bool = False  # the pipeline is given the frames a second
    caches: tuple[str, ...] = ()  # kinds of ``sampling.cache`` that work with its denoiser
    autoencoder_trains: bool = False  # whether ``vae.train`` can be of it
    compiles: bool = False  # diffusers says which blocks of its denoiser repeat
    denoiser: str = ""  # ``module:class`` of one that is ours, where diffusers has no such pipeline
    shifts_by_size: bool = False  # the sigmas of a clip are shifted by its size, in training too
    shared: tuple[str, ...] = ()  # of ``parallel``'s ``context`` and ``tensor`` those by which ranks can share it
    solvers: tuple[str, ...] = ()  # beside the checkpoint's own that ``sampling.solver`` may name

    @property
    def module(self) -> str:
        return self.family.partition(":")[0]


CACHES = ("first_block", "taylorseer", "pyramid_attention")
"""Of diffusers', those that work with every denoiser here."""
SHARED = ("context", "tensor")
FLOW = ("unipc", "dpm++")
"""Solvers that take the answer of a flow."""
_VIDEO_UNET = "regdpo.models.video_unet:VideoUNet"
_WAN = {"t2v": "WanPipeline", "i2v": "WanImageToVideoPipeline"}

FAMILIES = {
    "wan": Declaration(
        "regdpo.models.wan:Wan",
        sizes.WAN,
        original_names.WAN,
        _WAN,
        fp32_decoder=True,
        caches=CACHES,
        autoencoder_trains=True,
        compiles=True,
        shared=SHARED,
        solvers=FLOW,
    ),
    "wan22": Declaration(
        "regdpo.models.wan22:Wan22",
        sizes.WAN,
        original_names.WAN,
        _WAN,
        fp32_decoder=True,
        caches=CACHES,
        autoencoder_trains=True,
        compiles=True,
        shared=SHARED,
        solvers=FLOW,
    ),
    "cogvideox": Declaration(
        "regdpo.models.cogvideox:CogVideoX",
        sizes.COGVIDEOX,
        pipelines={"t2v": "CogVideoXPipeline", "i2v": "CogVideoXImageToVideoPipeline"},
        caches=CACHES,
    ),
    "hunyuan_video": Declaration(
        "regdpo.models.hunyuan_video:HunyuanVideo",
        sizes.HUNYUAN_VIDEO,
        pipelines={"t2v": "HunyuanVideoPipeline"},
        caches=CACHES,
        compiles=True,
        solvers=FLOW,
    ),
    "ltx_video": Declaration(
        "regdpo.models.ltx_video:LTXVideo",
        sizes.LTX_VIDEO,
        original_names.LTX_VIDEO,
        {"t2v": "LTXPipeline", "i2v": "LTXImageToVideoPipeline"},
        told_rate=True,
        caches=CACHES,
        compiles=True,
        solvers=FLOW,
    ),
    "videocrafter2": Declaration(
        "regdpo.models.videocrafter2:VideoCrafter2",
        sizes.VIDEOCRAFTER2,
        pipelines={"t2v": "VideoCrafter2"},
        denoiser=_VIDEO_UNET,
    ),
    "t2v_turbo": Declaration(
        "regdpo.models.t2v_turbo:T2VTurbo",
        sizes.VIDEOCRAFTER2,
        pipelines={"t2v": "T2VTurbo"},
        denoiser=_VIDEO_UNET,
    ),
    "mugv": Declaration(
        "regdpo.models.mugv:MugV",
        sizes.MUGV,
        pipelines={"t2v": "MugV", "i2v": "MugV"},
        denoiser="regdpo.models.mugv_transformer:MugVTransformer3DModel",
        autoencoder_trains=True,
        compiles=True,
        shared=SHARED,
        shifts_by_size=True,
        solvers=FLOW,
    ),
}
"""By their names in the configuration, which takes no other. A new family is one file and one line here."""


def in_comfyui() -> list[str]:
    """Families whose layers ComfyUI knows by names of their own."""
    return [name for name, it in FAMILIES.items() if it.original_names]
