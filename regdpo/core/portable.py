"""Portable numbers: the same bits on every x86-64 processor with AVX2 (`deterministic: portable`).

Libraries choose their code by the processor, and each choice adds up in another order. The variables below make them
choose what all such processors have. They count when a library is loaded, one of them when the program starts, so they
are set for a process before it is: for the jobs of the workflow by ``workflow.reading``, for a stage that is run by
hand by ``config.command_line``. docs/reference/portable.md has the reasons and what was measured.
"""

import os
import platform
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from regdpo.core.digests import text_digest
from regdpo.core.errors import UserError


@dataclass(frozen=True)
class Switch:
    """A variable of the environment."""

    name: str
    value: str  # empty: it is taken away
    governs: str


ONE = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
AVX512 = ("F", "DQ", "BW", "VL", "CD", "ER", "PF", "_VBMI", "_VBMI2", "_VNNI", "_BITALG", "_IFMA", "_FP16", "_BF16")

SWITCHES = (
    Switch("ATEN_CPU_CAPABILITY", "avx2", "torch's own loops, sums and elementary functions"),
    Switch("ONEDNN_MAX_CPU_ISA", "AVX2", "oneDNN in torch: convolutions, and all of bf16"),
    Switch("ONEDNN_CPU_ISA_HINTS", "", "the same"),
    Switch("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT", "whether oneDNN rounds fp32 down to bf16 in between"),
    Switch("DNNL_MAX_CPU_ISA", "", "oneDNN by its older name"),
    Switch("DNNL_CPU_ISA_HINTS", "", "the same"),
    Switch("DNNL_DEFAULT_FPMATH_MODE", "", "the same"),
    Switch("MKL_CBWR", "COMPATIBLE", "MKL in torch: matrix products, eigenvectors, Fourier transforms, exp and more"),
    Switch("MKL_ENABLE_INSTRUCTIONS", "", "the same"),
    Switch("MKL_DYNAMIC", "FALSE", "whether MKL takes fewer threads than it is given"),
    Switch("OPENBLAS_CORETYPE", "Haswell", "OpenBLAS in numpy, scipy and OpenCV"),
    Switch("NPY_ENABLE_CPU_FEATURES", "X86_V3", "numpy's own loops"),
    Switch("NPY_DISABLE_CPU_FEATURES", "", "the same; numpy refuses to have both"),
    Switch("OPENCV_IPP", "disabled", "Intel's IPP in OpenCV, which asks for the processor's maker"),
    Switch("OPENCV_LOG_LEVEL", "ERROR", "what OpenCV says of the line above, in every process"),
    *(Switch(name, "1", "threads, between which sums are split") for name in ONE),
)
"""Of processors that have more than AVX2 two more, see ``environment``."""
TUNABLES, HWCAPS = "GLIBC_TUNABLES", "glibc.cpu.hwcaps"
OPENCV = "OPENCV_CPU_DISABLE"


def possible() -> bool:
    """Whether this machine's processor has what the mode is made of."""
    return platform.machine() == "x86_64" and {"avx2", "fma"} <= _flags()


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process whose numbers are to be portable. What the user's shell has set of them is overridden.

    Args:
        given: the environment that they go into; None: this process's.
    """
    given = os.environ if given is None else given
    found = {name: value for name, value in given.items() if name not in {it.name for it in SWITCHES}}
    found |= {it.name: it.value for it in SWITCHES if it.value}
    # Their own tunables of malloc and the like stay. Before glibc 2.33 the names had an ending.
    others = [it for it in found.get(TUNABLES, "").split(":") if it and not it.startswith(f"{HWCAPS}=")]
    masked = ",".join(f"-AVX512{name}" for name in AVX512)
    found[TUNABLES] = ":".join([*others, f"{HWCAPS}={masked}"])
    found.pop(OPENCV, None)
    if "avx512f" in _flags():  # elsewhere OpenCV complains that there is nothing to leave out
        found[OPENCV] = "AVX512-SKX"
    return found


def switches() -> dict[str, str]:
    """Those of ``environment`` alone."""
    return {name: value for name, value in environment({}).items() if value}


def adopt() -> None:
    """Give them to what this process starts from now on. Its own numbers stay what they are."""
    given = environment()
    for name in set(os.environ) - set(given):
        del os.environ[name]
    os.environ.update(given)


def check() -> None:
    """Raises UserError where the processor cannot."""
    if not possible():
        raise UserError(
            f"deterministic: portable numbers are those of x86-64 processors with AVX2, and {socket.gethostname()} has "
            f"{processor()}; set `deterministic: on`, whose bits are those of one machine"
        )


def start_over() -> None:
    """Begin this program anew with them, if it has begun without.

    Raises:
        UserError: the processor cannot.
    """
    check()
    if not active():
        adopt()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def active() -> bool:
    """Whether this process was given them."""
    return possible() and environment() == dict(os.environ)


def identity(portable: bool) -> str:
    """What of the mode shapes numbers, for digests; the machine is no part of it. Empty without the mode."""
    return f"portable-{text_digest(*(f'{it.name}={it.value}' for it in SWITCHES))[:8]}" if portable else ""


def processor() -> str:
    """This machine's processor as it names itself, with the numbers that makers keep apart."""
    told = _told()
    numbers = " ".join(told[key] for key in ("vendor_id", "cpu family", "model") if key in told)
    name = " ".join(told.get("model name", platform.processor() or platform.machine()).split())
    return f"{name} ({numbers})" if numbers else name


@cache
def _told() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _flags() -> set[str]:
    return set(_told().get("flags", "").split())
