"""Look before a GPU is asked for: is the configuration right, what would run, what does it cost, and why.

Tells mistakes with their place; then the jobs by stage, GPU-hours by the plan where launch.gpu names the card, the
disk, for each reason to run again one line, and what to make and look at first. Starts no job. For example

    python scripts/check.py --config my.yaml
    make check CONFIG=my.yaml

Results and store are looked for in the working directory, as Snakemake does; in the checkout, for a configuration that
lies outside of it, in the configuration's folder.
"""

import argparse
import io
import os
import shlex
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

from regdpo.config import schema, stage_inputs
from regdpo.core import errors, manifests
from regdpo.core.errors import UserError
from regdpo.core.rows import SplitRow
from regdpo.stages import pairs
from regdpo.workflow import changes, early, outlook, preflight
from regdpo.workflow.changes import Job

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "workflow/profiles/default/profile.v9+.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="config/config.yaml", help="a whole configuration; default: %(default)s")
    parser.add_argument("target", nargs="?", default="all", help="of the workflow; default: %(default)s")
    args = parser.parse_args()
    began, place = Path.cwd(), project(Path(args.config))
    if place != Path.cwd():
        args.config = Path(args.config).name
        os.chdir(place)
        print(f"in the project's folder: {place}")
    settings = schema.load(args.config)
    early.check(settings)
    jobs, targets = planned(Path(args.config), args.target)
    hours, notes = outlook.estimate(settings, jobs)
    notes += outlook.autoencoder(settings, jobs)
    counted = Path(settings.paths.results, "splits.parquet")
    if counted.exists():
        asked = stage_inputs.MinimumStage.model_validate(stage_inputs.MinimumStage.of(settings))
        notes += filter(None, [pairs.too_few(manifests.read(counted, SplitRow), asked)])
    running = [(job.rule, job.wildcards) for job in jobs if job.runs]
    for refused in (preflight.described, preflight.unconverted):
        try:
            refused(settings, running)
        except UserError as error:
            notes.append(f"not yet to be run: {error}")
    notes += preflight.lacking(settings, running)
    table = [*changes.table(jobs, hours), *filter(None, [changes.uncounted(jobs)])]
    print("\n".join([f"{args.config}: is right", "", *table, "", *notes]))
    if not any(job.runs for job in jobs):
        print("nothing is to be done")
        return
    print("\nwhy, and what for:")
    for cause, those in changes.causes(jobs, settings).items():
        print(f"  {cause}: {changes.touched(those)}")
    first = changes.first_target(jobs, targets)
    here = "" if place == ROOT else f" -s {shlex.quote(str(ROOT / 'workflow/Snakefile'))}"
    there = "" if place == began else f"cd {shlex.quote(str(place))} && "
    print(f"\nlook first at: {there}snakemake{here} --cores 2 {first} --configfile {shlex.quote(args.config)}")


def project(config: Path) -> Path:
    """The folder that the workflow runs in."""
    folder, here = config.absolute().parent.resolve(), Path.cwd()
    outside = config.is_file() and not folder.is_relative_to(ROOT)
    return folder if here == ROOT and outside else here


def check_whole(outputs: Iterable[str]) -> None:
    """See whether the manifests among what was made are as they were written.

    Raises:
        UserError: naming all that are damaged, with the commands.
    """
    damaged = []
    for path in sorted(it for it in outputs if it.endswith(".parquet") and Path(it).exists()):
        try:
            manifests.check_whole(path)
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        raise UserError("\nerror: ".join(damaged))


def planned(config: Path, target: str) -> tuple[list[Job], dict[str, str]]:
    """The jobs of a target, as a dry run finds them, in the order of the stages; and the target of each stage."""
    profile = yaml.safe_load(PROFILE.read_text())
    dag_settings = DAGSettings(
        targets={target},
        max_checksum_file_size=profile["max-checksum-file-size"],
        force_incomplete=profile["rerun-incomplete"],
    )
    quiet = OutputSettings(quiet={Quietness.ALL})
    with SnakemakeApi(quiet) as api:
        workflow = api.workflow(
            ResourceSettings(cores=1), ConfigSettings(configfiles=[config]), snakefile=ROOT / "workflow/Snakefile"
        )
        try:
            rules = list(workflow._workflow.rules)
            targets = {_stage(rule): rule.name for rule in rules if not rule.output and rule.name != "all"}
            if target not in ("all", *targets.values()):
                raise UserError(f"{target}: there is no such target; there are all, {', '.join(targets.values())}")
            with redirect_stdout(io.StringIO()):
                workflow.dag(dag_settings).summary()
        except WorkflowError as error:
            raise UserError(" ".join(str(error).split())) from None
        dag = workflow._workflow.dag
        order = {rule.name: number for number, rule in enumerate(rules)}
        numbers = {job: number for number, job in enumerate(sorted(dag.jobs, key=lambda job: order[job.rule.name]))}
        check_whole(str(file) for job in numbers if not dag.needrun(job) for file in job.output)
        jobs = [described(dag, job, numbers) for job in numbers if job.output]
    return jobs, targets


def described(dag: Any, job: Any, numbers: dict[Any, int]) -> Job:
    """Of Snakemake's what is to be told."""
    reason = dag.reason(job)
    change = reason.params_changed
    why = {
        changes.RULE: reason.code_changed,
        "its inputs are others": reason.input_changed,
        "an input has another content": bool(reason.updated_input),
        "it was interrupted": bool(reason.incomplete_output),
    }
    return Job(
        number=numbers[job],
        rule=job.rule.name,
        stage=_stage(job.rule),
        wildcards=dict(job.wildcards_dict),
        runs=dag.needrun(job),
        missing=bool(reason.missing_output),
        changed={name: repr(value) for name, value in job.params.items() if change and repr(value) in change.only_new},
        recorded=frozenset(change.only_old) if change else frozenset(),
        others=tuple(name for name, holds in why.items() if holds),
        above=frozenset(numbers[other] for other in dag.dependencies[job]),
    )


def _stage(rule: Any) -> str:
    """The name of the file that has the rule."""
    return Path(rule.snakefile).stem


if __name__ == "__main__":
    errors.run(main)
