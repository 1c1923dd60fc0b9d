"""Captures from a real Snakemake (9.27) on a real Slurm (22.05), cut to what is looked at, and how to lay them out.

`MIXED` is one run: a group, an array, a rule that fails twice, a local one; `jobid: 99` is put in, as a command may. `KILLED` was killed with -9; `AFTER` is the same
command again. `OTHERS` are jobs under the name of no run: requeued, on two nodes, cancelled in the queue, without a limit.
"""

from datetime import UTC, datetime
from pathlib import Path

MIXED = "2026-11-21T101537.234473"
MIXED_LOG = """
SNAKEMAKE
=========
  Date: 2026-11-21 10:15:37
  Host: vm
  User: root

Building DAG of jobs...
SLURM run ID: 2fdce70e-5019-434f-a585-d46a3348b8b1
Select jobs to execute...
Execute 7 jobs...
[Sat Nov 21 10:15:37 2026] Group job small (jobs in lexicogr. order):
    [Sat Nov 21 10:15:37 2026]
    rule g1:
        output: out/g1.txt
        jobid: 5
        benchmark: logs/benchmarks/g1.tsv
        reason: Missing output files: out/g1.txt
        resources: tmpdir=<TBD>, mem_mb=200, mem=200 MB, mem_mib=191, slurm_partition=cpu, runtime=3
Shell command: sleep 2; echo > out/g1.txt
    [Sat Nov 21 10:15:37 2026]
    rule g2:
        input: out/g1.txt
        output: out/grouped.txt
        jobid: 4
        benchmark: logs/benchmarks/g2.tsv
        resources: tmpdir=<TBD>, mem_mb=200, mem=200 MB, mem_mib=191, slurm_partition=cpu, runtime=3
Shell command: sleep 3; echo > out/grouped.txt
[Sat Nov 21 10:15:37 2026]
rule shard:
    output: out/dpo/seed0.txt
    log: logs/shard/dpo/seed0.log
    jobid: 2
    benchmark: logs/benchmarks/shard/dpo/seed0.tsv
    reason: Missing output files: out/dpo/seed0.txt
    wildcards: arm=dpo, seed=0
    resources: tmpdir=<TBD>, mem_mb=300, mem=300 MB, mem_mib=287, slurm_partition=gpu, runtime=5, gpu=1
Shell command: sleep 6; echo dpo > out/dpo/seed0.txt
    jobid: 99
[Sat Nov 21 10:15:37 2026]
rule fails:
    output: out/fails.txt
    jobid: 6
    benchmark: logs/benchmarks/fails.tsv
    resources: tmpdir=<TBD>, mem_mb=200, mem=200 MB, mem_mib=191, slurm_partition=cpu, runtime=3
Shell command: sleep 2; if [ -e tried ]; then exit 3; else touch tried; exit 4; fi
[Sat Nov 21 10:15:37 2026]
rule arr:
    output: out/arr/1.txt
    jobid: 7
    benchmark: logs/benchmarks/arr/1.tsv
    wildcards: i=1
    resources: tmpdir=<TBD>, mem_mb=200, mem=200 MB, mem_mib=191, slurm_partition=cpu, runtime=3
Shell command: sleep 2; echo > out/arr/1.txt
[Sat Nov 21 10:15:37 2026]
rule arr:
    output: out/arr/3.txt
    jobid: 9
    benchmark: logs/benchmarks/arr/3.tsv
    wildcards: i=3
    resources: tmpdir=<TBD>, mem_mb=200, mem=200 MB, mem_mib=191, slurm_partition=cpu, runtime=3
Shell command: sleep 2; echo > out/arr/3.txt
Job 2 has been submitted with SLURM jobid 1 (log: /project/logs/slurm/rule_shard/dpo_0/1.log).
Job 8e784484-2bb4-5d1e-8e96-7c843a7b6d28 has been submitted with SLURM jobid 2 (log: /project/logs/slurm/group_small_g1_g2/2.log).
Job 6 has been submitted with SLURM jobid 4 (log: /project/logs/slurm/rule_fails/4.log).
Submitted array job with Snakemake IDs 7,9,8 and SLURM job ID 5. The individual task IDs are 1-3.
[Sat Nov 21 10:15:51 2026]
Finished jobid: 5 (Rule: g1)
[Sat Nov 21 10:15:51 2026]
Finished jobid: 4 (Rule: g2)
2 of 9 steps (20%) done
[Sat Nov 21 10:15:52 2026]
Error in rule fails:
    message: SLURM-job '4' failed, SLURM status is: 'FAILED'. Reason: Unknown.
    jobid: 6
    output: out/fails.txt
    shell:
        sleep 2; if [ -e tried ]; then exit 3; else touch tried; exit 4; fi
        (command exited with non-zero exit code)
    external_jobid: 4
Trying to restart job 6.
Select jobs to execute...
[Sat Nov 21 10:15:52 2026]
rule fails:
    output: out/fails.txt
    jobid: 6
    benchmark: logs/benchmarks/fails.tsv
    resources: tmpdir=<TBD>, mem_mb=200, mem=200 MB, mem_mib=191, slurm_partition=cpu, runtime=3
Shell command: sleep 2; if [ -e tried ]; then exit 3; else touch tried; exit 4; fi
Job 6 has been submitted with SLURM jobid 7 (log: /project/logs/slurm/rule_fails/7.log).
[Sat Nov 21 10:16:06 2026]
Finished jobid: 2 (Rule: shard)
[Sat Nov 21 10:16:06 2026]
Finished jobid: 7 (Rule: arr)
[Sat Nov 21 10:16:06 2026]
Finished jobid: 9 (Rule: arr)
[Sat Nov 21 10:16:06 2026]
localrule merge:
    input: out/dpo/seed0.txt
    output: out/merge.txt
    log: logs/merge.log
    jobid: 1
    resources: tmpdir=/tmp, mem_mb=300, mem=300 MB, mem_mib=287, slurm_partition=cpu, runtime=5
Shell command: cat out/dpo/seed0.txt > out/merge.txt
[Sat Nov 21 10:16:06 2026]
Finished jobid: 1 (Rule: merge)
[Sat Nov 21 10:16:07 2026]
Error in rule fails:
    message: SLURM-job '7' failed, SLURM status is: 'FAILED'. Reason: Unknown.
    jobid: 6
Exiting because a job execution failed. Look above for error messages
WorkflowError:
At least one job did not complete successfully.
"""
MIXED_SACCT = """\
1|COMPLETED|2026-11-21T10:15:37|2026-11-21T10:15:38|2026-11-21T10:15:54|16|5|n1|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||2fdce70e-5019-434f-a585-d46a3348b8b1|rule_shard_wildcards_dpo_0
1.batch|COMPLETED|2026-11-21T10:15:38|2026-11-21T10:15:38|2026-11-21T10:15:54|16||n1|1||cpu=1,gres/gpu=1,mem=300M,node=1|||batch|
1.0|COMPLETED|2026-11-21T10:15:40|2026-11-21T10:15:40|2026-11-21T10:15:53|13||n1|1||cpu=1,gres/gpu=1,mem=300M,node=1|||python|
2|COMPLETED|2026-11-21T10:15:37|2026-11-21T10:15:38|2026-11-21T10:15:51|13|6|n1|1|billing=1,cpu=1,mem=200M,node=1|billing=1,cpu=1,mem=200M,node=1|||2fdce70e-5019-434f-a585-d46a3348b8b1|rule_small_g1_g2
4|FAILED|2026-11-21T10:15:37|2026-11-21T10:15:38|2026-11-21T10:15:47|9|3|n2|1|billing=1,cpu=1,mem=200M,node=1|billing=1,cpu=1,mem=200M,node=1|||2fdce70e-5019-434f-a585-d46a3348b8b1|rule_fails
5_1|COMPLETED|2026-11-21T10:15:37|2026-11-21T10:15:48|2026-11-21T10:15:55|7|3|n2|1|billing=1,cpu=1,mem=201M,node=1|billing=1,cpu=1,mem=201M,node=1|||2fdce70e-5019-434f-a585-d46a3348b8b1|rule_arr_wildcards_1
5_1.batch|COMPLETED|2026-11-21T10:15:48|2026-11-21T10:15:48|2026-11-21T10:15:55|7||n2|1||cpu=1,mem=201M,node=1|||batch|
5_2|COMPLETED|2026-11-21T10:15:37|2026-11-21T10:15:53|2026-11-21T10:16:03|10|3|n1|1|billing=1,cpu=1,mem=201M,node=1|billing=1,cpu=1,mem=201M,node=1|||2fdce70e-5019-434f-a585-d46a3348b8b1|rule_arr_wildcards_1
7|FAILED|2026-11-21T10:15:52|2026-11-21T10:15:55|2026-11-21T10:16:03|8|3|n2|1|billing=1,cpu=1,mem=200M,node=1|billing=1,cpu=1,mem=200M,node=1|||2fdce70e-5019-434f-a585-d46a3348b8b1|rule_fails
"""

KILLED, AFTER = "2026-11-21T102049.984835", "2026-11-21T102121.685968"
SHARDS = """
  Host: vm
SLURM run ID: {run}
[Sat Nov 21 {began} 2026]
rule shard:
    output: out/dpo/seed0.txt
    jobid: 2
    benchmark: logs/benchmarks/shard/dpo/seed0.tsv
    wildcards: arm=dpo, seed=0
    resources: tmpdir=<TBD>, mem_mb=300, mem=300 MB, mem_mib=287, slurm_partition=gpu, runtime=5, gpu=1
[Sat Nov 21 {began} 2026]
rule shard:
    output: out/sft/seed1.txt
    jobid: 3
    benchmark: logs/benchmarks/shard/sft/seed1.tsv
    wildcards: arm=sft, seed=1
    resources: tmpdir=<TBD>, mem_mb=300, mem=300 MB, mem_mib=287, slurm_partition=gpu, runtime=5, gpu=1
Job 3 has been submitted with SLURM jobid {sft} (log: /project/logs/slurm/rule_shard/sft_1/{sft}.log).
Job 2 has been submitted with SLURM jobid {dpo} (log: /project/logs/slurm/rule_shard/dpo_0/{dpo}.log).
"""
KILLED_LOG = SHARDS.format(run="ec86ac8a-fc56-4d6a-81e1-841662d05e2a", began="10:20:50", sft=3, dpo=4)
AFTER_LOG = (
    SHARDS.format(run="a92a23e9-3e63-46f6-9515-2df118c875d1", began="10:21:22", sft=7, dpo=8)
    + """\
[Sat Nov 21 10:22:30 2026]
Finished jobid: 3 (Rule: shard)
1 of 4 steps (25%) done
[Sat Nov 21 10:22:30 2026]
Finished jobid: 2 (Rule: shard)
[Sat Nov 21 10:22:30 2026]
localrule merge:
    input: out/dpo/seed0.txt, out/sft/seed1.txt
    output: out/merge.txt
    log: logs/merge.log
    jobid: 1
    resources: tmpdir=/tmp, mem_mb=300, mem=300 MB, mem_mib=287, slurm_partition=cpu, runtime=5
Shell command: sleep 2; cat out/dpo/seed0.txt out/sft/seed1.txt > out/merge.txt
[Sat Nov 21 10:22:32 2026]
Finished jobid: 1 (Rule: merge)
[Sat Nov 21 10:22:32 2026]
localrule all:
    input: out/merge.txt
    jobid: 0
    resources: tmpdir=/tmp, mem_mb=300, mem=300 MB, mem_mib=287, slurm_partition=cpu, runtime=5
[Sat Nov 21 10:22:32 2026]
Finished jobid: 0 (Rule: all)
"""
)
KILLED_SACCT = """\
3|COMPLETED|2026-11-21T10:20:50|2026-11-21T10:20:52|2026-11-21T10:21:40|48|5|n1|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||ec86ac8a-fc56-4d6a-81e1-841662d05e2a|rule_shard_wildcards_sft_1
3.batch|COMPLETED|2026-11-21T10:20:52|2026-11-21T10:20:52|2026-11-21T10:21:40|48||n1|1||cpu=1,gres/gpu=1,mem=300M,node=1|173384K|cpu=00:00:01,energy=0,fs/disk=33349162,mem=173384K,pages=0,vmem=658316K|batch|
3.0|COMPLETED|2026-11-21T10:20:55|2026-11-21T10:20:55|2026-11-21T10:21:38|43||n1|1||cpu=1,gres/gpu=1,mem=300M,node=1|258000K|cpu=00:00:01,energy=0,fs/disk=35251878,mem=258000K,pages=1,vmem=832540K|python|
4|COMPLETED|2026-11-21T10:20:50|2026-11-21T10:20:52|2026-11-21T10:21:40|48|5|n2|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||ec86ac8a-fc56-4d6a-81e1-841662d05e2a|rule_shard_wildcards_dpo_0
4.0|COMPLETED|2026-11-21T10:20:55|2026-11-21T10:20:55|2026-11-21T10:21:39|44||n2|1||cpu=1,gres/gpu=1,mem=300M,node=1|257844K|cpu=00:00:01,energy=0,fs/disk=35253144,mem=257844K,pages=0,vmem=832516K|python|
"""
AFTER_SACCT = """\
7|COMPLETED|2026-11-21T10:21:22|2026-11-21T10:21:28|2026-11-21T10:22:14|46|5|n2|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||a92a23e9-3e63-46f6-9515-2df118c875d1|rule_shard_wildcards_sft_1
7.batch|COMPLETED|2026-11-21T10:21:28|2026-11-21T10:21:28|2026-11-21T10:22:14|46||n2|1||cpu=1,gres/gpu=1,mem=300M,node=1|173908K|cpu=00:00:01,energy=0,fs/disk=33349132,mem=173908K,pages=0,vmem=658296K|batch|
7.0|COMPLETED|2026-11-21T10:21:30|2026-11-21T10:21:30|2026-11-21T10:22:13|43||n2|1||cpu=1,gres/gpu=1,mem=300M,node=1|258040K|cpu=00:00:01,energy=0,fs/disk=35201792,mem=258040K,pages=0,vmem=832516K|python|
8|COMPLETED|2026-11-21T10:21:22|2026-11-21T10:21:42|2026-11-21T10:22:28|46|5|n2|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||a92a23e9-3e63-46f6-9515-2df118c875d1|rule_shard_wildcards_dpo_0
8.0|COMPLETED|2026-11-21T10:21:44|2026-11-21T10:21:44|2026-11-21T10:22:27|43||n2|1||cpu=1,gres/gpu=1,mem=300M,node=1|257816K|cpu=00:00:01,energy=0,fs/disk=35204550,mem=257816K,pages=0,vmem=831496K|python|
"""
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
BENCHMARKS = {
    "dpo/seed0": f"{BENCHMARK}40.15\t0:00:40\t93.77\t97.96\t84.98\t85.51\t0.01\t0.00\t0.00\t0.06\n",
    "sft/seed1": f"{BENCHMARK}40.17\t0:00:40\t93.89\t97.96\t85.00\t85.90\t0.00\t0.00\t0.00\t0.08\n",
}

OTHERS = "5b0f3f1e-1111-2222-3333-444455556666"
OTHERS_SACCT = """\
1|REQUEUED|2026-11-21T10:20:45|2026-11-21T10:20:47|2026-11-21T10:20:48|1|2|n1|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||5b0f3f1e-1111-2222-3333-444455556666|rule_requeued
1.batch|CANCELLED|2026-11-21T10:20:47|2026-11-21T10:20:47|2026-11-21T10:20:48|1||n1|1||cpu=1,gres/gpu=1,mem=300M,node=1||energy=0|batch|
2|COMPLETED|2026-11-21T10:20:45|2026-11-21T10:20:47|2026-11-21T10:21:27|40|5|n[1-2]|2|billing=2,cpu=2,gres/gpu=2,mem=600M,node=2|billing=2,cpu=2,gres/gpu=2,mem=600M,node=2|||5b0f3f1e-1111-2222-3333-444455556666|rule_two_nodes
2.batch|COMPLETED|2026-11-21T10:20:47|2026-11-21T10:20:47|2026-11-21T10:21:27|40||n1|1||cpu=1,gres/gpu=1,mem=300M,node=1|10680K|cpu=00:00:00,energy=0,fs/disk=30025,mem=10680K,pages=1,vmem=286156K|batch|
2.0|COMPLETED|2026-11-21T10:20:47|2026-11-21T10:20:47|2026-11-21T10:21:27|40||n[1-2]|2||cpu=2,gres/gpu=2,mem=600M,node=2|92820K|cpu=00:00:00,energy=0,fs/disk=1437990,mem=185448K,pages=0,vmem=191904K|python3|
1|COMPLETED|2026-11-21T10:20:48|2026-11-21T10:22:49|2026-11-21T10:22:55|6|2|n1|1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|billing=1,cpu=1,gres/gpu=1,mem=300M,node=1|||5b0f3f1e-1111-2222-3333-444455556666|rule_requeued
5|CANCELLED by 0|2026-11-21T10:21:13|2026-11-21T10:21:16|2026-11-21T10:21:16|0|10|None assigned|1|billing=1,cpu=1,gres/gpu=2,mem=300M,node=1||||5b0f3f1e-1111-2222-3333-444455556666|rule_wants_all
6|COMPLETED|2026-11-21T10:21:13|2026-11-21T10:21:42|2026-11-21T10:21:43|1|UNLIMITED|n1|2|billing=1,cpu=1,gres/gpu=2,mem=300M,node=1|billing=2,cpu=2,gres/gpu=2,mem=300M,node=1|||5b0f3f1e-1111-2222-3333-444455556666|rule_wants_much
15|RUNNING|2026-11-21T10:16:10|2026-11-21T10:16:15|Unknown|1|1|n1|1|billing=1,cpu=1,mem=200M,node=1|billing=1,cpu=1,mem=200M,node=1|||5b0f3f1e-1111-2222-3333-444455556666|
15.batch|RUNNING|2026-11-21T10:16:15|2026-11-21T10:16:15|Unknown|1||n1|1||cpu=1,mem=200M,node=1|||batch|
"""


def at(clock: str) -> datetime:
    """A moment of the day of the captures."""
    return datetime.fromisoformat(f"2026-11-21T{clock}+00:00").astimezone(UTC)


def project(folder: Path, **logs: str) -> Path:
    """A project that has left these logs (`mixed`, `killed`, `after`) and the benchmark files of the shards."""
    for which, text in logs.items():
        name = {"mixed": MIXED, "killed": KILLED, "after": AFTER}[which]
        path = folder / f".snakemake/log/{name}.snakemake.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, text in BENCHMARKS.items():
        path = folder / f"logs/benchmarks/shard/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
