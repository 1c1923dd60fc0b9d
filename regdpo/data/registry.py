"""The filters of clips, each declared once: the score that it looks at, the key of its threshold, and what it says.

Configuration, manifests, pages and tests derive from ``FILTERS``. A new filter is a function in ``measures`` and an
entry here. Thresholds that would reject ordinary footage are off; the scores are measured all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from regdpo.core.section import Fraction, NonNegative, Positive, Share

MEASURES = "regdpo.data.measures"


@dataclass(frozen=True)
class Filter:
    """A score of a clip and the threshold beyond which the clip is rejected."""

    score: str
    """Its name in ``ClipRow.scores``."""
    function: str
    """``module:name``, which takes a ``filters.Look`` and gives the score."""
    key: str
    """Of the threshold, in ``clips.filters``."""
    bound: Literal["least", "greatest"]
    """What the threshold is to the score."""
    default: float | None
    """None: off, unless the configuration gives a threshold."""
    kind: Any
    """Type of the threshold with its bounds, as pydantic reads it."""
    description: str
    says: str
    """Why a clip is rejected; ``score`` and ``limit`` are filled in."""
    of_change: bool = False
    """Whether it wants frames that differ, which a clip of one frame, an image, cannot have."""
    measures: str = ""
    """What the score is, with its unit."""
    weights: str = ""
    """Key of the models in ``clips``, of a score that needs some. Then the function takes that section and the store,
    and gives what scores an accepted clip's row; it is asked only where the threshold is given."""
    packages: tuple[str, ...] = ()
    """Locked packages that shape such a score."""
    column: str = ""
    """Of ``ClipRow``, which the function fills instead, where the score is a matter of clips together: it is found when
    the shards are merged (regdpo/data/similar.py)."""

    @property
    def module(self) -> str:
        """Its code."""
        return self.function.partition(":")[0]

    def measure(self) -> Callable[..., Any]:
        """The function."""
        module, _, name = self.function.partition(":")
        found: Callable[..., Any] = getattr(import_module(module), name)
        return found

    def rejects(self, score: float, limit: float) -> bool:
        """Whether the score lies beyond the threshold."""
        return score < limit if self.bound == "least" else score > limit


FILTERS: dict[str, Filter] = {
    "enlarged": Filter(
        score="upscale",
        function=f"{MEASURES}:upscale",
        key="max_upscale",
        bound="greatest",
        default=1.5,
        kind=Positive,
        description="Greatest factor by which frames are enlarged to the clip's size; above: enlarged. From 480 to 720 "
        "rows it is 1.5.",
        says="frames are enlarged {score:.3g} times, more than {limit:g}; clips.width and clips.height, or "
        "clips.buckets, ask for it",
        measures="how many times frames are enlarged",
    ),
    "black": Filter(
        score="luma",
        function=f"{MEASURES}:luma",
        key="min_luma",
        bound="least",
        default=8.0,
        kind=NonNegative,
        description="Least mean luma (0..255); below: black.",
        says="mean luma {score:.1f} is below {limit:g}",
        measures="mean luma, 0..255",
    ),
    "frozen": Filter(
        score="frozen",
        function=f"{MEASURES}:frozen",
        key="max_frozen",
        bound="greatest",
        default=0.5,
        kind=Fraction,
        description="Greatest share of frames equal to the one before; above: frozen.",
        says="{score:.0%} of the frames equal the one before, more than {limit:.0%}",
        measures="share of frames equal to the one before",
        of_change=True,
    ),
    "static": Filter(
        score="motion",
        function=f"{MEASURES}:motion",
        key="min_motion",
        bound="least",
        default=0.5,
        kind=NonNegative,
        description="Least mean absolute difference of neighbouring frames (luma, 0..255); below: static.",
        says="motion {score:.2f} is below {limit:g}",
        of_change=True,
        measures="mean difference of neighbouring frames, luma 0..255",
    ),
    "still": Filter(
        score="flow",
        function=f"{MEASURES}:flow",
        key="min_flow",
        bound="least",
        default=None,
        kind=NonNegative | None,
        description="Least mean length of the optical flow, in shorter sides of the picture a second; below: still. "
        "Unlike `min_motion` it takes no noise for motion.",
        says="the picture moves {score:.3f} shorter sides a second, less than {limit:g}",
        of_change=True,
        measures="mean optical flow, in shorter sides of the picture a second",
    ),
    "fast": Filter(
        score="flow",
        function=f"{MEASURES}:flow",
        key="max_flow",
        bound="greatest",
        default=3.0,
        kind=Positive | None,
        description="Greatest mean length of the optical flow, likewise; above: fast, as a camera is that is swung "
        "about all the time.",
        says="the picture moves {score:.3g} shorter sides a second, more than {limit:g}",
        measures="mean optical flow, in shorter sides of the picture a second",
    ),
    "blurred": Filter(
        score="sharpness",
        function=f"{MEASURES}:sharpness",
        key="min_sharpness",
        bound="least",
        default=2.0,
        kind=NonNegative | None,
        description="Least variance of the Laplacian (luma 0..255, at the clip's size); below: blurred. The default "
        "takes what shows next to nothing; MUG-V 10B keeps 200 to 2000 (arXiv 2510.17519, section 2).",
        says="the variance of the Laplacian is {score:.3g}, less than {limit:g}",
        measures="variance of the Laplacian",
    ),
    "harsh": Filter(
        score="sharpness",
        function=f"{MEASURES}:sharpness",
        key="max_sharpness",
        bound="greatest",
        default=None,
        kind=Positive | None,
        description="Greatest variance of the Laplacian; above: harsh, as noise and screens full of text are.",
        says="the variance of the Laplacian is {score:.4g}, more than {limit:g}",
        measures="variance of the Laplacian",
    ),
    "border": Filter(
        score="border",
        function=f"{MEASURES}:border",
        key="max_border",
        bound="greatest",
        default=0.05,
        kind=Fraction | None,
        description="Greatest share of the picture in black rows and columns along its edges; above: border. Borders "
        "that are blurred or coloured are not seen.",
        says="{score:.0%} of the picture are a black border, more than {limit:.0%}",
        measures="share of the picture in black borders",
    ),
    "flicker": Filter(
        score="flicker",
        function=f"{MEASURES}:flicker",
        key="max_flicker",
        bound="greatest",
        default=4.0,
        kind=Positive | None,
        description="Greatest swing of the mean luma (0..255) from frame to frame and back, averaged over the clip; "
        "above: flicker.",
        says="mean luma swings by {score:.1f} from frame to frame, more than {limit:g}",
        measures="swing of the mean luma from frame to frame, 0..255",
    ),
    "slideshow": Filter(
        score="slideshow",
        function=f"{MEASURES}:slideshow",
        key="max_slideshow",
        bound="greatest",
        default=0.9,
        kind=Fraction | None,
        description="Greatest share of the change that is not steady: 1 where the picture stands still for three "
        "quarters of the time and changes in the rest; above: slideshow.",
        says="the picture stands still and changes by jumps ({score:.2f}, more than {limit:g})",
        measures="share of the change that is not steady",
    ),
    "loop": Filter(
        score="loop",
        function=f"{MEASURES}:loop",
        key="max_loop",
        bound="greatest",
        default=0.9,
        kind=Fraction | None,
        description="Greatest likeness, of half of a clip or more, to what its shot showed up to 30 s before, with "
        "something else in between: 1 is exact; above: loop, as short animations are that are shown again and again.",
        says="the shot has shown this before ({score:.2f}, more than {limit:g})",
        measures="likeness to what the shot showed before",
    ),
    "overlay": Filter(
        score="overlay",
        function=f"{MEASURES}:overlay",
        key="max_overlay",
        bound="greatest",
        default=None,
        kind=Fraction | None,
        description="Greatest share of the picture's blocks in which edges stay while what is around them changes, as "
        "beneath text or a logo; above: overlay. A windscreen or a window frame does the same, so it is off; "
        "text on a box of its own is not seen.",
        says="in {score:.1%} of the picture edges stay while what is around them changes, more than {limit:.1%}",
        measures="share of the picture in which edges stay while what is around them changes",
    ),
    "compressed": Filter(
        score="bits",
        function=f"{MEASURES}:bits",
        key="min_bits",
        bound="least",
        default=None,
        kind=NonNegative | None,
        description="Least bits of the source's file for each pixel that it shows; below: compressed. What is little "
        "depends on its codec: 0.02 of H.264 is poor, of AV1 not.",
        says="the file has {score:.3g} bits a pixel, less than {limit:g}",
        measures="bits of the source's file for each of its pixels",
    ),
    "plain": Filter(
        score="aesthetic",
        function="regdpo.data.aesthetic:Aesthetic",
        key="min_aesthetic",
        bound="least",
        default=None,
        kind=Positive | None,
        description="Least score of LAION's aesthetic predictor, made for votes from 1 to 10; below: plain. Needs "
        "`clips.aesthetic`, and is asked of clips that nothing else rejects.",
        says="the aesthetic score is {score:.2f}, less than {limit:g}",
        measures="score of LAION's aesthetic predictor, mean over some frames",
        weights="aesthetic",
        packages=("torch", "transformers"),
    ),
    "poor": Filter(
        score="dover",
        function="regdpo.data.dover:Dover",
        key="min_dover",
        bound="least",
        default=None,
        kind=Fraction | None,
        description="Least score of DOVER, from 0 to 1, of which half is the middle of its authors' data; below: poor. "
        "Needs `clips.dover` and what `make filters` installs, and is asked of clips that nothing else rejects.",
        says="DOVER scores it {score:.2f}, less than {limit:g}",
        measures="score of DOVER, technical and aesthetic quality in one",
        weights="dover",
        packages=("onnxruntime", "opencv-python-headless"),
    ),
    "text": Filter(
        score="text",
        function="regdpo.data.ocr:Ocr",
        key="max_text",
        bound="greatest",
        default=None,
        kind=Fraction | None,
        description="Greatest share of the picture that text covers, burned in or part of the scene; above: text. A "
        "line of subtitles covers 0.02 to 0.05. Needs what `make filters` installs, and is asked of clips that nothing "
        "else rejects.",
        says="text covers {score:.1%} of the picture, more than {limit:.1%}",
        measures="share of the picture that text covers, median over some frames",
        weights="ocr",
        packages=("onnxruntime", "opencv-python-headless"),
    ),
    "similar": Filter(
        score="similar",
        function="regdpo.data.embeddings:Embeddings",
        key="max_similar",
        bound="greatest",
        default=None,
        kind=Share | None,
        description="Greatest cosine of a clip's embedding with that of another, of another shot, in the same video or "
        "elsewhere; above: similar, and one of the two is kept. Needs `clips.embeddings`, and is asked of clips that "
        "nothing else rejects.",
        says="its embedding has the cosine {score:.3f} with that of another clip, more than {limit:g}",
        measures="cosine of a clip's embedding with the nearest one before it",
        weights="embeddings",
        packages=("torch", "transformers"),
        column="embedding",
    ),
}
"""First word of the reason -> declaration; of several that reject a clip the first is told."""

WEIGHTS = frozenset(it.weights for it in FILTERS.values() if it.weights)
"""Keys of the models, in ``clips``."""


def of_weights(filters: Any) -> dict[str, Filter]:
    """The filters that need weights and are on, by the configuration's section."""
    return {kind: it for kind, it in FILTERS.items() if it.weights and getattr(filters, it.key) is not None}
