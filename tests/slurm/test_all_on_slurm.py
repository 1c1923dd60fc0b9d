"""The whole workflow through profiles/slurm; what Slurm's accounting says of it."""

import re

from project import CONFIG
from slurm_project import SlurmProject

from regdpo.config.evaluation import Scores
from regdpo.core import manifests
from regdpo.evaluate import measures
from regdpo.evaluate.measures import MEASURES
from regdpo.workflow.timeline.rows import JobRow

ASKED = {  # rule, of scores with the measure -> partition, GPUs, MB of a node, nodes, minutes, times
    "cut_clips": ("cpu", 0, 4001, 1, 240, 2),  # an array, with 1 MB for the list of its tasks
    "compare_halves": ("cpu", 0, 2000, 1, 60, 1),
    "encode_latents": ("gpu", 1, 64000, 1, 720, 1),
    "render_negatives": ("gpu", 1, 128000, 1, 720, 1),
    "render_candidates": ("gpu", 1, 128000, 1, 720, 1),
    "score_candidates": ("cpu", 0, 2000, 1, 60, 1),
    "train_arm": ("gpu", 2, 600000, 2, 2880, 1),
    "render_samples": ("gpu", 1, 128000, 1, 720, 2),
} | {
    f"score {name}": (
        (
            "gpu" if it.gpu else "cpu",
            int(it.gpu),
            it.memory[1] or it.memory[0],
            1,
            it.runtime,
            2 + (it.reads == "samples"),
        )
    )
    for name, it in measures.asked(Scores().on).items()
    if it.reads != "answers"
}
PLANNED = {
    "base_from_scratch": ("cpu", 0, 4000, 1, 60),
    "pretrain": ("gpu", 2, 4000, 2, 240),
    "train_vae": ("gpu", 2, 4000, 2, 2880),
    "measure_vae": ("gpu", 1, 3000, 1, 240),
}
"""As above, but for the times, of what no test of this folder runs: a small base model, and an autoencoder's training."""


def rule_of(job: dict[str, str]) -> str:
    return job["Comment"].removeprefix("rule_").partition("_wildcards_")[0]


def kind_of(job: dict[str, str]) -> str:
    """Its rule, and of a score its measure."""
    measure = next((name for name in MEASURES if name in job["Comment"]), "")
    return f"score {measure}" if rule_of(job) == "score" else rule_of(job)


def amounts(resources: str) -> dict[str, str]:
    """Of what Slurm calls TRES: `cpu=1,gres/gpu=2,mem=6000M`."""
    return dict(part.split("=") for part in resources.split(","))


def test_each_rule_got_what_it_asked_for(finished):
    got: dict[str, set] = {}
    for job in finished.ran:
        assert (job["State"], job["Account"]) == ("COMPLETED", "default")
        given, nodes = amounts(job["AllocTRES"]), int(job["NNodes"])
        assert given["mem"].endswith("M")
        memory = int(given["mem"][:-1]) // nodes
        gpus = int(given.get("gres/gpu", 0))
        times = sum(kind_of(other) == kind_of(job) for other in finished.ran)
        asked = job["Partition"], gpus, memory, nodes, int(job["TimelimitRaw"]), times
        got.setdefault(kind_of(job), set()).add(asked)
    assert sum("_" in job["JobID"] for job in finished.ran) == 2
    assert got == {rule: {asked} for rule, asked in ASKED.items()}


def test_each_rule_of_a_small_base_and_of_an_autoencoder_would_ask_for(tmp_path):
    project = SlurmProject(tmp_path)
    (tmp_path / "other").mkdir()
    vae = {"report": True, "train": {"of": "other", "batch": 2, "windows": [2]}}
    negatives = CONFIG["negatives"] | {"generators": {"base": {}, "other": {"model": "../other"}}}
    project.configure(CONFIG | {"launch": {"processes": 2, "nodes": 2}, "vae": vae, "negatives": negatives})
    said = project.snakemake("--dry-run", "results/base/model.json", "vae").stdout
    for rule, asked in PLANNED.items():
        line = re.search(rf"rule {rule}:\n(?:    .*\n)*?    resources: (.*)", said)[1]
        given = dict(part.split("=") for part in line.split(", "))
        assert given["slurm_partition"] == asked[0]
        amounts = (
            int(given.get(name, default)) for name, default in (("gpu", 0), ("mem_mb", 0), ("nodes", 1), ("runtime", 0))
        )
        assert tuple(amounts) == asked[1:]


def test_training_ran_as_two_ranks_on_two_nodes(cluster, finished):
    (job,) = (job for job in finished.ran if rule_of(job) == "train_arm")
    nodes = cluster.run("scontrol", "show", "hostnames", job["NodeList"]).split()
    assert len(nodes) == 2
    log = (finished.folder / "logs/train/dpo/seed0.log").read_text()
    ranks = dict(re.findall(r"rank (\d) of 2 on (\w+),", log))
    assert sorted(ranks) == ["0", "1"]
    assert sorted(ranks.values()) == nodes


def test_the_timeline_agrees_with_the_accounting(finished):
    rows = {row.job: row for row in manifests.read(finished.folder / "logs/timeline.parquet", JobRow) if row.job}
    assert set(rows) == {job["JobID"] for job in finished.ran}
    for job in finished.ran:
        row, gpus = rows[job["JobID"]], int(amounts(job["AllocTRES"]).get("gres/gpu", 0))
        told = row.source, row.rule, row.state, row.nodes, row.gpus, row.limit_s
        assert told == ("sacct", rule_of(job), "COMPLETED", job["NodeList"], gpus, 60 * int(job["TimelimitRaw"]))
        assert row.waiting_s is not None
        assert row.gpu_hours_asked == gpus * int(job["TimelimitRaw"]) / 60
        assert row.gpu_hours_held >= row.gpu_hours_used
        assert (row.gpu_hours_used > 0) == (gpus > 0)
    assert len({row.wildcards for row in rows.values() if row.rule == "cut_clips"}) == 2
    page = (finished.folder / "results/report/timeline.html").read_text()
    assert f"{len(finished.ran)} jobs went through Slurm; the median wait was " in page


def test_an_unchanged_second_run_does_nothing(cluster, finished):
    before = cluster.sacct(fields="JobID")
    assert "Nothing to be done" in finished.snakemake("all").stdout
    assert cluster.sacct(fields="JobID") == before
