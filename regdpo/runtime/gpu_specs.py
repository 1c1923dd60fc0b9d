"""GPUs by their data sheets and by what programs find of them, for plans and for what a step reaches of a peak; it
shapes no result."""

import re
from dataclasses import dataclass

from regdpo.core.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet."""

    peak_flops: float  # bf16 matrix products, dense, fp32 accumulation
    label_gb: int  # memory, as it is sold
    usable_gib: float  # of it, what programs see: torch's `total_memory`

    @property
    def memory(self) -> float:
        """Bytes that programs see."""
        return self.usable_gib * GIB


# NVIDIA's data sheets of each, whose figures "with sparsity" are halved; RTX 4090 and 3090: the white papers of the Ada
# and the GA102 architecture.
# B200: an HGX board, of whose eight GPUs each has 180 of its 192 GB to give.
# Usable memory: reported, the least "total capacity" in public logs of torch's out-of-memory messages; drivers differ
# by a few tenths, and ECC takes a part of GDDR6.
GPUS = {
    "H100 PCIe": Gpu(756e12, 80, 79.1),
    "H100 SXM": Gpu(989e12, 80, 79.1),
    "H200": Gpu(989e12, 141, 139.7),
    "A100 40GB": Gpu(312e12, 40, 39.3),
    "A100 80GB": Gpu(312e12, 80, 79.1),
    "L40S": Gpu(362e12, 48, 44.3),
    "RTX 4090": Gpu(165.2e12, 24, 23.5),
    "RTX 3090": Gpu(71e12, 24, 23.6),
    "B200": Gpu(2250e12, 180, 178.3),
}
LEAST_OF_LABEL = min(gpu.usable_gib / gpu.label_gb for gpu in GPUS.values())


def gpu_named(name: str) -> Gpu | None:
    """The GPU of the table by its name there, or by words of it that no other row has (``4090``, ``NVIDIA H200``), in
    upper or lower case; None if there is none."""
    words = name.lower().replace("-", " ").split()
    asked = {word for word in words if word not in ("nvidia", "geforce")}
    found = [known for known in GPUS if asked and asked <= set(known.lower().split())]
    exact = [known for known in found if asked == set(known.lower().split())]
    return GPUS[(exact or found)[0]] if len(exact or found) == 1 else None


def parse_memory(text: str) -> float:
    """``80GB`` or ``79.1GiB`` in bytes. GB are a label: the least that programs see of the known GPUs with that label,
    or for a label of no known GPU the smallest share of it that any known GPU has.

    Raises:
        UserError: it is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GiB|GB|G)\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"--gpu-memory: {text!r} is no amount of memory; write 80GB for a label, 79.1GiB for bytes")
    amount = float(match[1])
    if match[2].lower() == "gib":
        return amount * GIB
    return min((gpu.memory for gpu in GPUS.values() if gpu.label_gb == amount), default=amount * LEAST_OF_LABEL * GIB)


def peak_flops(name: str) -> float | None:
    """The bf16 peak in FLOP/s of a GPU by the name that CUDA gives it; None if the table has no such GPU."""
    known = table_name(name)
    return GPUS[known].peak_flops if known else None


def table_name(name: str) -> str | None:
    """A GPU of the table by the name that CUDA gives it; None if there is none. Memory is not told apart by it."""
    words = name.upper().replace("-", " ").split()
    for known in GPUS:
        model, *kind = known.upper().split()
        if model == "RTX":
            model, kind = kind[0], []
        if model in words and not {"D", "TI"} & set(words) and (kind != ["PCIE"] or "PCIE" in words):
            return known
    return None
