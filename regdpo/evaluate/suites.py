"""VBench's dimensions, its suites and the files that they need, each declared once.

Where VBench 0.1.5 looks for files, and where it would download them from, is as in ``vbench/utils.py``,
``vbench/aesthetic_quality.py``, ``vbench/third_party/ViCLIP/simple_tokenizer.py`` and ``vbench2_beta_i2v/utils.py``.
"""

from dataclasses import dataclass, replace
from typing import Literal

VIDEOS = 5
"""Videos of a prompt that VBench asks for."""
STATIC_OF = 25
"""Videos of a prompt for flickering, of which the first ``VIDEOS`` that stand still count."""
RATIOS = {"1-1": 1.0, "8-5": 8 / 5, "7-4": 7 / 4, "16-9": 16 / 9}
"""Width to height of the crops that VBench-I2V's images come in, by the names of their folders."""


@dataclass(frozen=True)
class Weight:
    """A file, or a folder of code, below ``scores.vbench.weights``."""

    path: str
    url: str
    what: str
    kind: Literal["file", "zip", "git", "hub"] = "file"
    """``zip``: it is in an archive, which is unpacked ``below``; ``git``: a clone; ``hub``: in the hub's layout."""
    sha256: str = ""
    """Where it is published: of OpenAI's models in their addresses."""
    below: str = ""


HUGGING = "https://huggingface.co"
OPENAI = "https://openaipublic.azureedge.net/clip/models"
B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"

WEIGHTS: dict[str, Weight] = {
    "clip_b32": Weight("clip_model/ViT-B-32.pt", f"{OPENAI}/{B32}/ViT-B-32.pt", "CLIP ViT-B/32", sha256=B32),
    "clip_l14": Weight("clip_model/ViT-L-14.pt", f"{OPENAI}/{L14}/ViT-L-14.pt", "CLIP ViT-L/14", sha256=L14),
    "aesthetic": Weight(
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        "https://github.com/LAION-AI/aesthetic-predictor/blob/main/sa_0_4_vit_l_14_linear.pth?raw=true",
        "LAION's aesthetic head",
    ),
    "dino_code": Weight(
        "dino_model/facebookresearch_dino_main",
        "https://github.com/facebookresearch/dino",
        "DINO's code",
        "git",
    ),
    "dino": Weight(
        "dino_model/dino_vitbase16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        "DINO ViT-B/16",
    ),
    "amt": Weight("amt_model/amt-s.pth", f"{HUGGING}/lalala125/AMT/resolve/main/amt-s.pth", "AMT-S"),
    "raft": Weight(
        "raft_model/models/raft-things.pth",
        "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip",
        "RAFT",
        "zip",
        below="raft_model",
    ),
    "musiq": Weight(
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
        "MUSIQ of SPAQ",
    ),
    "grit": Weight(
        "grit_model/grit_b_densecap_objectdet.pth",
        "https://datarelease.blob.core.windows.net/grit/models/grit_b_densecap_objectdet.pth",
        "GRiT",
    ),
    "umt": Weight(
        "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        f"{HUGGING}/OpenGVLab/VBench_Used_Models/resolve/main/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        "UMT ViT-L/16",
    ),
    "tag2text": Weight(
        "caption_model/tag2text_swin_14m.pth",
        f"{HUGGING}/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
        "Tag2Text Swin-B",
    ),
    "viclip": Weight(
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        f"{HUGGING}/OpenGVLab/VBench_Used_Models/resolve/main/ViClip-InternVid-10M-FLT.pth",
        "ViCLIP",
    ),
    "viclip_words": Weight(
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
        "CLIP's vocabulary",
        sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    ),
    "bert": Weight(
        "huggingface/models--bert-base-uncased", f"{HUGGING}/bert-base-uncased", "BERT's tokenizer and weights", "hub"
    ),
    "dreamsim": Weight(
        "dreamsim/ensemble_lora/adapter_config.json",
        "https://github.com/ssundaram21/dreamsim/releases/download/v0.2.0-checkpoints/dreamsim_ensemble_checkpoint.zip",
        "DreamSim's ensemble",
        "zip",
        below="dreamsim",
    ),
    "cotracker_code": Weight(
        "cotracker/facebookresearch_co-tracker_main",
        "https://github.com/facebookresearch/co-tracker",
        "CoTracker's code",
        "git",
    ),
    "cotracker": Weight(
        "cotracker/cotracker2.pth", f"{HUGGING}/facebook/cotracker/resolve/main/cotracker2.pth", "CoTracker 2"
    ),
}


@dataclass(frozen=True)
class Dimension:
    """What VBench measures under a name."""

    weights: tuple[str, ...] = ()
    """Names in ``WEIGHTS``."""
    modules: tuple[str, ...] = ()
    """Python modules that it imports beside those that VBench always does."""
    custom: bool = False
    """Whether it can be measured of any video and its prompt: VBench's custom input."""
    label: str = ""
    """In the report's table, where it is custom."""
    note: str = ""
    scale: float = 1.0
    """What VBench's figure of one video is divided by: its aggregate is a fraction, and that is not."""
    counts: Literal["", "cnt_per_video", "frame_results", "frame_count"] = ""
    """What of VBench's result of a video says how much it counts in the aggregate; empty: all videos count alike."""
    package: Literal["vbench", "vbench2_beta_i2v"] = "vbench"
    leaves_out: bool = False
    """Whether VBench says nothing of some videos on purpose: those without the object whose colour counts."""


OBJECTS = Dimension(("grit", "bert"), ("detectron2",))
TEXT = Dimension(("viclip", "viclip_words"), ("clip", "timm", "einops"))

DIMENSIONS: dict[str, Dimension] = {
    "subject_consistency": Dimension(
        ("dino_code", "dino"), custom=True, label="Subject consistency", note="of DINO's features; a still is highest"
    ),
    "background_consistency": Dimension(
        ("clip_b32",),
        ("clip",),
        custom=True,
        label="Background consistency",
        note="of CLIP's features; a still is highest",
        counts="cnt_per_video",
    ),
    "temporal_flickering": Dimension(custom=True, label="Flickering", note="higher flickers less; a still is highest"),
    "motion_smoothness": Dimension(
        ("amt",), ("omegaconf",), custom=True, label="Smoothness", note="of interpolated frames; a still is highest"
    ),
    "dynamic_degree": Dimension(
        ("raft",), ("easydict",), custom=True, label="Dynamic degree", note="share of videos that move (RAFT)"
    ),
    "aesthetic_quality": Dimension(
        ("clip_l14", "aesthetic"), ("clip",), custom=True, label="Aesthetic quality", note="LAION's predictor"
    ),
    "imaging_quality": Dimension(
        ("musiq",), ("pyiqa",), custom=True, label="Imaging quality", note="MUSIQ: noise, blur, exposure", scale=100
    ),
    "object_class": OBJECTS,
    "multiple_objects": OBJECTS,
    "human_action": Dimension(("umt",), ("timm", "einops")),
    "color": replace(OBJECTS, leaves_out=True),
    "spatial_relationship": OBJECTS,
    "scene": Dimension(("tag2text", "bert"), ("fairscale", "timm"), counts="frame_count"),
    "appearance_style": Dimension(("clip_b32",), ("clip",), counts="frame_results"),
    "temporal_style": TEXT,
    "overall_consistency": Dimension(
        TEXT.weights, TEXT.modules, custom=True, label="Overall consistency", note="ViCLIP's of video and caption"
    ),
    "camera_motion": Dimension(("cotracker_code", "cotracker"), package="vbench2_beta_i2v"),
    "i2v_subject": Dimension(("dino_code", "dino"), package="vbench2_beta_i2v"),
    "i2v_background": Dimension(("dreamsim", "dino_code"), ("dreamsim",), package="vbench2_beta_i2v"),
}
"""In the order of VBench's tables; the last three are VBench-I2V's."""


@dataclass(frozen=True)
class Suite:
    """A set of dimensions that are read together."""

    title: str
    dimensions: tuple[str, ...]
    task: Literal["t2v", "i2v", ""] = ""
    """Of the models that it is for; empty: of both."""
    static: tuple[str, ...] = ()
    """Dimensions of which only videos count that stand still, ``STATIC_OF`` of which are made a prompt."""
    videos: int = 0
    """Of a model, of all prompts; ``VIDEOS`` of each."""
    more: int = 0
    """Beside those, so that enough stand still."""

    def rendered(self, static: bool, limit: int | None) -> int:
        """Videos of a model, at most.

        Args:
            static: whether only videos that stand still count where that is asked. limit: most prompts of a dimension.
        """
        if limit is None:
            return self.videos + self.more * static
        many = len(self.dimensions) * VIDEOS + len(self.static) * (STATIC_OF - VIDEOS) * static
        return min(limit * many, self.videos + self.more * static)


T2V = tuple(name for name, it in DIMENSIONS.items() if it.package == "vbench")
I2V = ("camera_motion", "i2v_subject", "i2v_background")
PAPER = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)

SUITES: dict[str, Suite] = {
    "custom": Suite("VBench, custom input: the six dimensions of Reg-DPO's tables (arXiv 2511.01450)", PAPER),
    "t2v": Suite(
        "VBench (arXiv 2311.17982)",
        T2V,
        "t2v",
        ("temporal_flickering",),
        944 * VIDEOS,
        75 * (STATIC_OF - VIDEOS),
    ),
    "i2v": Suite("VBench-I2V (arXiv 2411.13503)", (*I2V, *PAPER), "i2v", videos=1118 * VIDEOS),
}
"""``custom`` is measured on the samples of held-out clips; the others are prompts of their own."""

CUSTOM = tuple(name for name, it in DIMENSIONS.items() if it.custom)
OF_PROMPTS = tuple(name for name, it in SUITES.items() if it.task)


def expanded(names: list[str]) -> list[str]:
    """The dimensions, with those of a suite in the place of its name, each once and in VBench's order."""
    asked = {one for name in names for one in (SUITES[name].dimensions if name in SUITES else [name])}
    return [name for name in DIMENSIONS if name in asked]


def needs(dimension: str, static: bool = False) -> Dimension:
    """A dimension's declaration; with what tells videos that stand still, where only those count."""
    found = DIMENSIONS[dimension]
    if not static:
        return found
    moves = DIMENSIONS["dynamic_degree"]
    weights, modules = (*found.weights, *moves.weights), (*found.modules, *moves.modules)
    return replace(found, weights=weights, modules=modules, leaves_out=True)
