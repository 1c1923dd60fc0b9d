"""Snakemake, looking at its Slurm jobs every second. Its plugin looks ever less often, up to three minutes apart, and
nothing sets that; here everything would wait for it."""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1.0, lambda self, value: None)
sys.exit(main())
