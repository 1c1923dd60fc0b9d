"""GPUs by their data sheets, for plans and for what a step reaches of a peak; it shapes no result."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet."""

    peak_flops: float  # bf16 matrix products, dense, fp32 accumulation
    memory_gb: int  # as the label has it


# NVIDIA's data sheets of each, whose figures "with sparsity" are halved; RTX 4090: the Ada architecture's white paper.
# B200: an HGX board, of whose eight GPUs each has 180 of its 192 GB to give.
GPUS = {
    "H100 PCIe": Gpu(756e12, 80),
    "H100 SXM": Gpu(989e12, 80),
    "H200": Gpu(989e12, 141),
    "A100 40GB": Gpu(312e12, 40),
    "A100 80GB": Gpu(312e12, 80),
    "L40S": Gpu(362e12, 48),
    "RTX 4090": Gpu(165.2e12, 24),
    "B200": Gpu(2250e12, 180),
}


def gpu_named(name: str) -> Gpu | None:
    """The GPU of the table by its own name there, in upper or lower case; None if it has no such row."""
    return next((gpu for known, gpu in GPUS.items() if known.lower() == name.lower()), None)


def peak_flops(name: str) -> float | None:
    """The bf16 peak in FLOP/s of a GPU by the name that CUDA gives it; None if the table has no such GPU."""
    words = name.upper().replace("-", " ").split()
    for known, gpu in GPUS.items():
        model, *kind = known.upper().split()
        if model == "RTX":
            model, kind = kind[0], []
        if model in words and "D" not in words and (kind != ["PCIE"] or "PCIE" in words):
            return gpu.peak_flops
    return None
