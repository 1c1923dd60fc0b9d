"""Portable numbers: what the mode gives a process, what it makes stale, and where it cannot be had."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from regdpo.config import schema
from regdpo.core import portable
from regdpo.core.errors import UserError
from regdpo.core.golden import Table
from regdpo.models import device
from regdpo.workflow.params import Params

ROOT = Path(__file__).parents[2]
OLD = {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "42", "model name": "Intel Core  i7-2600"}


def config(**values) -> schema.Config:
    return schema.check(yaml.safe_load((ROOT / "config/config.yaml").read_text()) | values)


def processor(monkeypatch, flags: str) -> None:
    monkeypatch.setattr(portable, "_told", lambda: OLD | {"flags": flags})


def test_the_mode_wins_over_what_the_shell_has_set(monkeypatch):
    processor(monkeypatch, "avx2 fma")
    shell = {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "8", "NPY_DISABLE_CPU_FEATURES": "X86_V3", "HOME": "/root"}
    shell |= {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.cpu.hwcaps=-AVX2", "DNNL_MAX_CPU_ISA": "SSE41"}
    given = portable.environment(shell)
    assert (given["MKL_CBWR"], given["OMP_NUM_THREADS"], given["HOME"]) == ("COMPATIBLE", "1", "/root")
    assert given["GLIBC_TUNABLES"].startswith("glibc.malloc.arena_max=2:glibc.cpu.hwcaps=-AVX512F,")
    assert "-AVX2" not in given["GLIBC_TUNABLES"]
    assert not {"NPY_DISABLE_CPU_FEATURES", "DNNL_MAX_CPU_ISA", "OPENCV_CPU_DISABLE"} & set(given)
    assert portable.environment(given) == given


def test_opencv_is_told_of_what_is_there_alone(monkeypatch):
    """It complains of what is not."""
    processor(monkeypatch, "avx2 fma avx512f")
    assert portable.environment({})["OPENCV_CPU_DISABLE"] == "AVX512-SKX"


@pytest.mark.skipif(not portable.possible(), reason="the processor has no AVX2")
def test_a_stage_by_hand_begins_anew_with_the_mode(tmp_path):
    configuration = tmp_path / "my.yaml"
    values = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    configuration.write_text(yaml.safe_dump(values | {"videos": {"root": str(tmp_path)}}))
    code = (
        "import os, sys\n"
        "from regdpo.config import command_line\n"
        "command_line.parser('').parse_args()\n"
        "print(os.environ['MKL_CBWR'], os.environ['OMP_NUM_THREADS'], sys.argv[1:])\n"
    )
    arguments = ["--config", str(configuration), "--out", str(tmp_path / "out.parquet")]
    given = {name: value for name, value in os.environ.items() if name != "REGDPO_RUN"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=given | {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "7"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"COMPATIBLE 1 {arguments}\n", done.stderr


def test_the_default_on_a_cpu_is_portable_where_the_processor_can(monkeypatch):
    processor(monkeypatch, "avx2 fma")
    assert config().portable
    assert not config(launch={"processes": 2, "device": "auto"}).portable
    assert not config(deterministic=True).portable
    processor(monkeypatch, "avx")
    assert not config().portable
    assert config(deterministic="portable").portable


def test_on_a_gpu_portable_means_on():
    modes = {"auto": False, "portable": True, True: True, False: False}
    assert {mode: config(deterministic=mode).fixed_kernels for mode in modes} == modes


def test_a_processor_that_cannot_is_told_in_one_line(monkeypatch):
    processor(monkeypatch, "avx")
    with pytest.raises(UserError, match=r"has Intel Core i7-2600 \(GenuineIntel 6 42\); set `deterministic: on`"):
        portable.check()


def test_the_mode_makes_stale_what_computes_and_the_machine_does_not(monkeypatch):
    def digests(mode, flags="avx2 fma") -> list[str]:
        processor(monkeypatch, flags)
        declare = Params(config(deterministic=mode), ROOT)
        return [declare.env("torch", "numpy"), declare.env("huggingface-hub")]

    on, portably = digests(True), digests("portable")
    assert digests(False) == on
    assert digests("auto") == portably == digests("portable", "avx2 fma avx512f")
    assert on[0] != portably[0]
    assert on[1] == portably[1]


def test_roots_are_those_of_ieee_754():
    """As numpy takes them, by the processor's instruction: of numbers of every kind, in place and into a tensor."""
    device._exact_roots()
    for given in (np.linspace(0, 3, 5000), np.linspace(0, 3, 5000, dtype=np.float32)[::3], np.float32(2), np.arange(9)):
        x = torch.from_numpy(np.asarray(given).copy())
        exact = np.sqrt(np.asarray(given, np.float64 if np.asarray(given).dtype == np.float64 else np.float32))
        assert torch.equal(x.sqrt(), torch.from_numpy(np.asarray(exact)))
        assert torch.equal(torch.sqrt(x, out=torch.empty(0, dtype=x.sqrt().dtype)), x.sqrt())
        if x.is_floating_point():
            assert torch.equal(x.clone().sqrt_(), x.sqrt())
    assert torch.tensor(2.0, dtype=torch.bfloat16).sqrt() == torch.tensor(2**0.5, dtype=torch.bfloat16)
    leaf = torch.tensor(4.0, requires_grad=True)
    leaf.sqrt().backward()
    assert leaf.grad == 0.25


def test_a_table_lists_the_machines_that_made_the_same(monkeypatch, tmp_path):
    table = Table(machines=["another"], digests={"mm": "1", "sum": "2"})
    processor(monkeypatch, "avx2")
    here = portable.processor()
    assert table.seen({"mm": "1", "sum": "2"}).machines == [here, "another"]
    changed = table.seen({"mm": "1", "sum": "3"})
    assert changed.machines == [here]
    changed.write(tmp_path / "golden/table.json")
    assert Table.read(tmp_path / "golden/table.json") == changed
    assert changed.differ({"mm": "1", "exp": "4"}) == "exp: 4 instead of not there\nsum: not there instead of 3"
