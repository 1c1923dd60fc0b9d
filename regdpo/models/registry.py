"""Model families: everything that is particular to one architecture."""

from collections.abc import Mapping
from dataclasses import dataclass

from regdpo.models.original_names import LTX_VIDEO, WAN


@dataclass(frozen=True)
class Declaration:
    """All that is said of a family outside its own module."""

    family: str  # ``module:class``
    original_names: Mapping[str, str] | None = None  # by which ComfyUI knows its layers, if it does

    @property
    def module(self) -> str:
        return self.family.partition(":")[0]


FAMILIES = {
    "wan": Declaration("regdpo.models.wan:Wan", original_names=WAN),
    "wan22": Declaration("regdpo.models.wan22:Wan22", original_names=WAN),
    "cogvideox": Declaration("regdpo.models.cogvideox:CogVideoX"),
    "hunyuan_video": Declaration("regdpo.models.hunyuan_video:HunyuanVideo"),
    "ltx_video": Declaration("regdpo.models.ltx_video:LTXVideo", original_names=LTX_VIDEO),
}
"""By their names in the configuration, which takes no other. A new family is one file and one line here."""


def in_comfyui() -> list[str]:
    """Families whose layers ComfyUI knows by names of their own."""
    return [name for name, it in FAMILIES.items() if it.original_names]
