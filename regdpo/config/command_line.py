"""The command line that the stages' scripts have in common."""

import argparse
import os
from pathlib import Path
from typing import Any

from regdpo.config import stage_inputs
from regdpo.config.run_file import RUN, current
from regdpo.core import portable
from regdpo.core.temporaries import check_writable


class _Parser(argparse.ArgumentParser):
    """Of a stage, which begins anew where its configuration asks for portable numbers and it was started without what
    those take: by hand, or on a machine whose shell has set something else."""

    def parse_args(self, *given: Any, **options: Any) -> Any:
        args = super().parse_args(*given, **options)
        if not given and Path(args.config).is_file() and stage_inputs.portable(args.config):
            portable.start_over()
        return args


def store_option(parser: argparse.ArgumentParser) -> None:
    """``--store``; by default the workflow's."""
    default = current().store
    parser.add_argument("--store", default=default, help="folder of the store (paths.store); default: %(default)s")


def parser(description: str | None, out: bool = True) -> argparse.ArgumentParser:
    """The options every stage's script has.

    Args:
        description: of the script.
        out: whether it always writes a manifest.
    """
    result = _Parser(description=(description or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get(RUN)
    result.add_argument(
        "--config",
        required=default is None,
        default=default,
        help="a whole configuration (YAML); started by the workflow: default its own",
    )
    store_option(result)
    result.add_argument("--out", required=out, type=_writable, help="the manifest to write")
    return result


def vbench(parser: argparse.ArgumentParser, suites: bool = True) -> None:
    """Where VBench is and what it needs; by default the workflow's.

    Args:
        suites: also what its own suites need.
    """
    run = current()
    parser.add_argument(
        "--python", default=run.vbench, help="interpreter of VBench's environment; default: %(default)s"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=run.vbench_weights,
        help="folder of what its dimensions need; default: %(default)s",
    )
    if suites:
        parser.add_argument("--images", type=Path, default=run.images or None, help="folder of VBench-I2V's images")
        parser.add_argument("--i2v-prompts", default=run.i2v_prompts or None, help="VBench-I2V's list of prompts")


def _writable(text: str) -> Path:
    """The path of a file to write; told at once if that cannot be, not when the work is done."""
    path = Path(text)
    check_writable(path.parent)
    return path


def shard(text: str) -> tuple[int, int]:
    """``2/8`` as (2, 8): the third of eight shards."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not INDEX/COUNT with INDEX < COUNT")
    return int(index), int(count)
