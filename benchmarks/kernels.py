"""Is there a fusion that torch.compile misses? Modulation and gated residuals as they are, compiled and by Triton, and
the kernels that torch.compile makes of whole blocks.

    python benchmarks/kernels.py                              # results in benchmarks/results/kernels_NAME_DATE/
    python benchmarks/kernels.py --parts blocks --budget 120
    TRITON_INTERPRET=1 python benchmarks/kernels.py --dry     # in miniature on the CPU, most of it compiling C++

It needs what gpu.py needs, and Triton, which comes with torch for CUDA. Where that is not, its rows say so.
"""

import sys
from typing import TYPE_CHECKING

import gpu

if TYPE_CHECKING:
    from gpu_parts.runner import Part


def _parts() -> "list[Part]":
    from gpu_parts import blocks, fusion
    from gpu_parts.runner import Part

    measures = {"functions": (110, fusion), "blocks": (130, blocks)}
    return [
        Part(name, " ".join((module.__doc__ or "").split()), limit, module.measure)
        for name, (limit, module) in measures.items()
    ]


if __name__ == "__main__":
    sys.exit(gpu.command("kernels", __doc__, 240, _parts))
