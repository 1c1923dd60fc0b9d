"""Where the time went: the figures are counted by hand from captures of a real Snakemake on a real Slurm."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import timeline_inputs as given
from timeline_inputs import at, project

from regdpo.core import manifests
from regdpo.runs import events
from regdpo.runtime.sacct import FIELDS, Unavailable, ask, parse
from regdpo.workflow.naming import events_of
from regdpo.workflow.timeline import page, picture, snakemake_log
from regdpo.workflow.timeline.rows import JobRow, gather
from regdpo.workflow.timeline.snakemake_log import Attempt, Run

ROOT = Path(__file__).resolve().parents[2]
EVERY = given.MIXED_SACCT + given.KILLED_SACCT + given.AFTER_SACCT + given.OTHERS_SACCT


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    """The captures were made where clocks show UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def answers(text):
    """An accounting that has this to tell; it notes what it is asked."""
    asked = []

    def ask(names, jobs, since):
        asked.append((set(names), set(jobs), since))
        found = parse(text)
        return [told for told in found if told.name in names or told.job.partition("+")[0] in jobs]

    ask.asked = asked
    return ask


def silent(names, jobs, since):
    raise Unavailable("Slurm accounting storage is disabled")


def table(folder, ask, known=()):
    rows, _ = gather(snakemake_log.read_all(folder), list(known), folder, ask)
    return {row.row_id: row for row in rows}


def test_the_log_of_a_run(tmp_path):
    (run,) = snakemake_log.read_all(project(tmp_path, mixed=given.MIXED_LOG))
    assert (run.name, run.host, run.slurm) == (given.MIXED, "vm", "2fdce70e-5019-434f-a585-d46a3348b8b1")
    found = [
        (a.rule, a.wildcards, a.slurm, a.local, a.succeeded, a.ended and f"{a.ended:%H:%M:%S}") for a in run.attempts
    ]
    assert found == [
        ("g1+g2", "", "2", False, True, "10:15:51"),
        ("shard", "arm=dpo, seed=0", "1", False, True, "10:16:06"),
        ("fails", "", "4", False, False, "10:15:52"),
        ("arr", "i=1", "5_1", False, True, "10:16:06"),
        ("arr", "i=3", "5_2", False, True, "10:16:06"),  # the second of the ids 7,9,8
        ("fails", "", "7", False, False, "10:16:07"),
        ("merge", "", "", True, True, "10:16:06"),
    ]
    shard = run.attempts[1]
    assert (shard.benchmark, shard.threads) == ("logs/benchmarks/shard/dpo/seed0.tsv", 1)
    assert (shard.resources["gpu"], shard.resources["runtime"], shard.resources["mem_mb"]) == ("1", "5", "300")


def test_the_log_of_a_killed_run(tmp_path):
    (run,) = snakemake_log.read_all(project(tmp_path, killed=given.KILLED_LOG))
    assert [(a.slurm, a.ended, a.succeeded) for a in run.attempts] == [("4", None, None), ("3", None, None)]
    cut = given.KILLED_LOG[: given.KILLED_LOG.index("    resources")]
    (run,) = snakemake_log.read_all(project(tmp_path, killed=cut))
    assert [a.rule for a in run.attempts] == ["shard"]


def test_times_of_the_log_are_local(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")  # five hours behind, in November
    time.tzset()
    (run,) = snakemake_log.read_all(project(tmp_path, killed=given.KILLED_LOG))
    assert run.attempts[0].began == at("15:20:50")


def test_accounting():
    found = parse(given.OTHERS_SACCT)
    assert [(told.job, told.state, told.nodes) for told in found] == [
        ("1", "REQUEUED", "n1"),
        ("2", "COMPLETED", "n[1-2]"),
        ("1", "COMPLETED", "n1"),
        ("5", "CANCELLED", ""),
        ("6", "COMPLETED", "n1"),
        ("15", "RUNNING", "n1"),
    ]
    first, two, again, never, unlimited, living = found
    assert (first.submitted, again.submitted, again.started) == (at("10:20:45"), at("10:20:48"), at("10:22:49"))
    assert (two.gpus, two.cpus, two.seconds, two.limit_s, two.mem_asked_mb) == (2, 2, 40, 300, 600)
    assert two.mem_peak_mb == 185448 / 1024  # of both tasks; the larger one has 92820K
    assert (never.started, never.ended, never.seconds, never.gpus) == (None, at("10:21:16"), None, 2)
    assert (unlimited.limit_s, unlimited.mem_peak_mb) == (None, None)
    assert (living.ended, living.seconds, living.gpus) == (None, 1, None)


@pytest.mark.parametrize(
    ("tres", "expected"),
    [
        ("cpu=1,gres/gpu:a100=1,gres/gpu:h100=2", 3),
        ("gres/gpu:a100=4,gres/gpu=4", 4),
        ("cpu=1,mem=2G", None),
        ("", None),
    ],
)
def test_kinds_of_gpus(tres, expected):
    line = f"1|COMPLETED|Unknown|Unknown|Unknown|7|5|n1|1||{tres}|||name|"
    assert parse(line)[0].gpus == expected


def test_a_comment_may_hold_anything():
    text = given.KILLED_SACCT.replace("rule_shard_wildcards_sft_1", "a|b\nsecond|line")
    assert [told.comment for told in parse(text)] == ["a|b", "rule_shard_wildcards_dpo_0"]


def test_a_killed_run_and_the_next(tmp_path):
    folder = project(tmp_path, killed=given.KILLED_LOG, after=given.AFTER_LOG)
    rows = table(folder, answers(EVERY))
    assert set(rows) == {f"{given.KILLED}/{job}/1" for job in "34"} | {
        f"{given.AFTER}/{job}/1" for job in ("7", "8", "merge")
    }
    row = rows[f"{given.AFTER}/7/1"]
    assert (row.run, row.rule, row.wildcards, row.job) == (given.AFTER, "shard", "arm=sft, seed=1", "7")
    assert (row.source, row.state, row.nodes, row.cpus, row.gpus) == ("sacct", "COMPLETED", "n2", 1, 1)
    times = [f"2026-11-21T{clock}+00:00" for clock in ("10:21:22", "10:21:28", "10:22:14")]
    assert [row.submitted, row.started, row.ended] == times
    assert (row.waiting_s, row.running_s, row.working_s, row.cpu_s, row.limit_s) == (6, 46, 40.17, 0.08, 300)
    assert row.gpu_hours_asked == pytest.approx(300 / 3600)
    assert row.gpu_hours_held == pytest.approx(46 / 3600)
    assert row.gpu_hours_used == pytest.approx(40.17 / 3600)
    assert (row.mem_asked_mb, row.mem_peak_mb) == (300, 258040 / 1024)
    killed = rows[f"{given.KILLED}/3/1"]  # the later job wrote over its benchmark
    assert (killed.state, killed.running_s, killed.working_s, killed.gpu_hours_used) == ("COMPLETED", 48, None, None)
    local = rows[f"{given.AFTER}/merge/1"]
    assert (local.source, local.job, local.nodes, local.submitted) == ("snakemake", "", "vm", "")
    assert (local.waiting_s, local.running_s, local.gpus, local.gpu_hours_asked) == (None, 2, None, None)


def test_each_job_of_a_run(tmp_path):
    rows = table(project(tmp_path, mixed=given.MIXED_LOG), answers(EVERY))
    found = {row.job: (row.rule, row.wildcards, row.state, row.gpus) for row in rows.values()}
    assert found == {
        "1": ("shard", "arm=dpo, seed=0", "COMPLETED", 1),
        "2": ("g1+g2", "", "COMPLETED", None),
        "4": ("fails", "", "FAILED", 0),
        "5_1": ("arr", "i=1", "COMPLETED", 0),
        "5_2": ("arr", "i=3", "COMPLETED", 0),
        "7": ("fails", "", "FAILED", 0),
        "": ("merge", "", "COMPLETED", None),
    }


def test_jobs_that_only_accounting_knows(tmp_path):
    """Submitted at the moment in which Snakemake was killed; and one that went back into the queue."""
    run = Run("2026-11-21T102040.000000", "vm", given.OTHERS, [Attempt("early", "", at("10:20:40"), local=True)])
    rows, _ = gather([run], [], tmp_path, answers(EVERY))
    found = {row.row_id.removeprefix(run.name): row for row in rows if row.job}
    assert set(found) == {"/1/1", "/1/2", "/2/1", "/5/1", "/6/1", "/15/1"}
    assert [(found[key].rule, found[key].outcome) for key in ("/1/1", "/1/2", "/5/1", "/15/1")] == [
        ("requeued", "requeued"),
        ("requeued", "done"),
        ("wants_all", "failed"),
        ("", "open"),  # comments come with the end
    ]
    assert found["/1/2"].waiting_s == 121  # from 10:20:48 to 10:22:49
    assert (found["/5/1"].waiting_s, found["/5/1"].running_s, found["/5/1"].gpu_hours_held) == (3, None, None)
    assert found["/5/1"].gpu_hours_asked == pytest.approx(2 * 600 / 3600)
    assert (found["/6/1"].gpu_hours_asked, found["/6/1"].gpu_hours_held) == (None, pytest.approx(2 / 3600))


def test_a_quiet_run(tmp_path):
    """`--quiet rules`: the log tells that jobs were submitted, and comments alone what they were."""
    heading, _, jobs = given.KILLED_LOG.partition("[Sat")
    quiet = heading + jobs[jobs.index("Job 3 has") :]
    rows = table(project(tmp_path, killed=quiet), answers(EVERY))
    assert [(row.rule, row.wildcards, row.job) for row in rows.values()] == [
        ("shard", "sft_1", "3"),
        ("shard", "dpo_0", "4"),
    ]
    assert table(project(tmp_path, killed=heading), answers(EVERY)) == {}  # nothing was to be done


def test_without_accounting(tmp_path):
    folder = project(tmp_path, after=given.AFTER_LOG)
    rows, reason = gather(snakemake_log.read_all(folder), [], folder, silent)
    assert reason == "Slurm accounting storage is disabled"
    row = next(row for row in rows if row.job == "7")
    assert (row.source, row.state, row.submitted) == ("snakemake", "COMPLETED", "2026-11-21T10:21:22+00:00")
    assert (row.waiting_s, row.nodes, row.gpu_hours_held) == (None, "", None)
    assert row.started == "2026-11-21T10:21:49+00:00"  # 40.17 s before 10:22:30
    assert (row.running_s, row.gpus, row.mem_asked_mb, row.mem_peak_mb) == (40.17, 1, 300, 93.89)
    assert row.gpu_hours_asked == pytest.approx(300 / 3600)
    assert row.gpu_hours_used == pytest.approx(40.17 / 3600)
    assert "Accounting told nothing of 2 of 2 jobs" in page.render(rows)
    told = table(folder, answers(EVERY), rows)  # later it answers
    assert (told[row.row_id].source, told[row.row_id].waiting_s) == ("sacct", 6)
    kept = table(folder, silent, told.values())  # and is lost again
    assert kept == told


def test_only_what_is_not_settled_is_asked_about(tmp_path):
    folder = project(tmp_path, killed=given.KILLED_LOG)
    ask = answers(EVERY.replace("|2026-11-21T10:21:40|48|", "|Unknown|9|").replace("3|COMPLETED", "3|RUNNING"))
    rows = table(folder, ask)
    assert [row.outcome for row in rows.values()] == ["open", "open"]
    project(folder, after=given.AFTER_LOG)
    ask = answers(EVERY)
    rows = table(folder, ask, rows.values())
    ((names, jobs, since),) = ask.asked
    assert names == {"ec86ac8a-fc56-4d6a-81e1-841662d05e2a", "a92a23e9-3e63-46f6-9515-2df118c875d1"}
    assert not jobs
    assert since < at("10:20:50")
    assert {row.outcome for row in rows.values()} == {"done"}
    again = answers("")
    assert table(folder, again, rows.values()) == rows
    assert not again.asked


def test_a_requeued_job_is_not_settled(tmp_path):
    folder = project(tmp_path, killed=given.KILLED_LOG)
    rows = table(folder, answers(EVERY.replace("3|COMPLETED", "3|REQUEUED", 1)))
    ask = answers(EVERY)
    table(folder, ask, rows.values())
    assert ask.asked


def test_what_was_known_stays(tmp_path):
    folder = project(tmp_path, killed=given.KILLED_LOG)
    rows = table(
        folder, answers(EVERY.replace("4|COMPLETED", "4|RUNNING").replace("10:21:40|48|5|n2", "Unknown|9|5|n2"))
    )
    assert rows[f"{given.KILLED}/3/1"].working_s == 40.17
    project(folder, after=given.AFTER_LOG)
    (folder / "logs/benchmarks/shard/sft/seed1.tsv").write_text(given.BENCHMARKS["sft/seed1"].replace("40.17", "38.00"))
    rows = table(folder, answers(EVERY), rows.values())
    assert rows[f"{given.KILLED}/3/1"].working_s == 40.17
    assert rows[f"{given.AFTER}/7/1"].working_s == 38
    for log in folder.glob(".snakemake/log/*"):
        log.unlink()
    assert table(folder, silent, rows.values()) == rows


def test_accounting_that_is_behind(tmp_path):
    """Snakemake knows the end, accounting does not yet: what is known is shown, and it is asked again."""
    folder = project(tmp_path, after=given.AFTER_LOG)
    behind = EVERY.replace("7|COMPLETED|2026-11-21T10:21:22|2026-11-21T10:21:28|2026-11-21T10:22:14|46|",
                           "7|RUNNING|2026-11-21T10:21:22|2026-11-21T10:21:28|Unknown|45|")  # fmt: skip
    rows = table(folder, answers(behind))
    row = rows[f"{given.AFTER}/7/1"]
    assert (row.state, row.source, row.waiting_s, row.running_s) == ("COMPLETED", "snakemake", 6, 62)
    assert table(folder, answers(EVERY), rows.values())[row.row_id].running_s == 46


def test_a_rule_failed_though_its_job_did_not(tmp_path):
    log = given.AFTER_LOG.replace("Finished jobid: 3 (Rule: shard)", "Error in rule shard:\n    jobid: 3")
    assert table(project(tmp_path, after=log), answers(EVERY))[f"{given.AFTER}/7/1"].outcome == "failed"


def test_a_training_that_is_a_job_of_its_own(tmp_path):
    """The launcher waits in a local rule; its job stands in its place."""
    folder = project(tmp_path, after=given.AFTER_LOG.replace("localrule merge", "localrule train_arm"))
    events.record(events_of(str(folder / "logs/merge.log")), "submitted", "20", tmp_path / "store/runs/it")
    job = "20+{part}|COMPLETED|2026-11-21T10:22:31|2026-11-21T10:22:31|2026-11-21T10:22:32|1|30|n{part}|2||gres/gpu=4,mem=8G|||train-x|\n"
    ask = answers(EVERY + job.format(part=0) + job.format(part=1))
    rows = table(folder, ask)
    assert ask.asked[0][1] == {"20"}
    mine = [row for row in rows.values() if row.rule == "train_arm"]
    assert [(row.job, row.nodes, row.gpu_hours_asked) for row in mine] == [("20+0", "n0", 2.0), ("20+1", "n1", 2.0)]
    again = answers("")
    assert table(folder, again, rows.values()) == rows
    assert not again.asked


def test_a_job_that_ended_after_a_page_was_drawn(tmp_path):
    """The rule was started again meanwhile, and found it done: it is asked about until it has ended."""
    folder = project(tmp_path, after=given.AFTER_LOG.replace("localrule merge", "localrule train_arm"))
    log, run = events_of(str(folder / "logs/merge.log")), tmp_path / "store/runs/it"
    events.record(log, "submitted", "20", run)
    job = "20|RUNNING|2026-11-21T10:22:31|2026-11-21T10:22:31|Unknown|1|30|n1|2||gres/gpu=4,mem=8G|||train-x|\n"
    rows = table(folder, answers(EVERY + job), [])
    events.record(log, "found", "20", run)
    log.write_text(log.read_text() + '{"time": "2026')  # a line that a kill cut off
    ended = job.replace("RUNNING", "COMPLETED").replace("Unknown", "2026-11-21T10:23:31")
    rows = table(folder, answers(EVERY + ended), rows.values())
    assert [(row.job, row.state) for row in rows.values() if row.rule == "train_arm"] == [("20", "COMPLETED")]


def test_what_is_no_number_in_a_benchmark(tmp_path):
    folder = project(tmp_path, after=given.AFTER_LOG)
    (folder / "logs/benchmarks/shard/sft/seed1.tsv").write_text(
        f"{given.BENCHMARK}40.17\t0:00:40\tNA\t-\t-\t-\t-\t-\tNA\tNA\n"
    )
    row = table(folder, answers(EVERY))[f"{given.AFTER}/7/1"]
    assert (row.working_s, row.cpu_s, row.mem_peak_mb) == (40.17, None, 258040 / 1024)


@pytest.fixture
def rows(tmp_path):
    logs = {"mixed": given.MIXED_LOG, "killed": given.KILLED_LOG, "after": given.AFTER_LOG}
    return list(table(project(tmp_path, **logs), answers(EVERY)).values())


def cells(html, rule):
    """The cells of a rule's line in the table of all runs."""
    line = re.search(rf'<tr><th scope="row">{re.escape(rule)}</th>(.*?)</tr>', html, re.S)[1]
    return [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<td.*?</td>", line, re.S)]


def test_the_page_says_what_the_rows_say(rows):
    html = page.render(rows)
    # 10:15:37 to 10:16:06, and two overlapping runs from 10:20:50 to 10:22:32
    assert "<h1>12 jobs in 2\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}11\N{NO-BREAK SPACE}s</h1>" in html
    assert "3 runs since 21\N{NO-BREAK SPACE}Nov\N{NO-BREAK SPACE}2026,\N{NO-BREAK SPACE}10:15 UTC" in html
    assert "<b>2 jobs failed or were ended early.</b>" in html
    assert "10 jobs went through Slurm" in html
    # 5 jobs, waited 1 2 2 6 20, ran 16 48 48 46 46, each asked for 300 s; two have a benchmark
    assert cells(html, "shard") == [
        "5", "2 s at most 20 s", "46 s at most 48 s", "3 min 24 s",
        "0.417", "0.0567", "0.0223 of 2 jobs",
        "252 MiB asked 300 MiB", "0.0 asked 1",
    ]  # fmt: skip
    # waited 1 and 3, ran 9 and 8; no GPU, so no GPU-hour; no benchmark
    assert cells(html, "fails") == ["2 2 failed", "2 s at most 3 s", "8.5 s at most 9 s", "17 s", "0", "0", "", "", ""]
    # local: blank is what is not known
    assert cells(html, "merge") == ["2", "", "1 s at most 2 s", "2 s", "", "", "", "", ""]


def test_same_rows_same_bytes_and_nothing_loaded(rows, tmp_path):
    html = page.render(rows)
    assert page.render(list(reversed(rows))) == html
    assert not re.search(r"<(script|link|img|iframe|object)\b", html)
    assert not re.search(r'(src|href)="', html)
    assert "http" not in html.replace('http-equiv="', "")
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert all(svg.count('role="img" aria-label="') for svg in re.findall(r'<svg class="gantt".*?</svg>', html, re.S))


def test_what_rules_and_wildcards_hold_is_escaped(rows):
    evil = [row.model_copy(update={"wildcards": '"><script>alert(1)</script>', "nodes": "<b>"}) for row in rows]
    html = page.render(evil)
    assert "<script" not in html
    assert "<b>&" not in html
    assert "&lt;script&gt;" in html


def test_no_run_yet():
    assert "No run yet" in page.render([])


def test_the_picture(rows):
    drawn = picture.draw(rows)
    first, second = drawn.stretches
    assert (first.seconds, second.seconds) == (29, 102)
    scale = (960 - 168 - 14 - 8) / 131
    assert (first.width, second.x) == pytest.approx((29 * scale, 168 + 29 * scale + 8))
    lanes = {lane.rule: lane for lane in drawn.lanes}
    assert list(lanes) == ["shard", "g1+g2", "fails", "arr", "merge"]
    bars = {bar.row.job: bar for bar in lanes["shard"].bars}
    assert (bars["8"].x, bars["8"].started, bars["8"].ended) == pytest.approx(
        [second.x + seconds * scale for seconds in (32, 52, 98)]  # 10:21:22, 10:21:42, 10:22:28 from 10:20:50
    )
    # at 10:21:22 jobs 3 and 4 still run
    assert len({bars[job].y for job in "3478"}) == 4
    assert bars["1"].y == bars["3"].y
    assert (drawn.most, [count for *_, count in drawn.gpus]) == (3, [1, 2, 3, 1, 2, 1])


def test_marks(rows):
    svg = re.search(r'<svg class="gantt".*?</svg>', page.render(rows), re.S)[0]
    classes = [group.get("class") for group in ElementTree.fromstring(svg).iter("g")]
    assert sorted(classes) == ["done"] * 10 + ["failed"] * 2
    living = [row.model_copy(update={"state": "RUNNING", "ended": ""}) if row.job == "8" else row for row in rows]
    html = page.render(living)
    assert '<g class="open">' in html
    assert "Of 1 job no end is known." in html


def test_many_jobs_at_once_stay_in_their_lane(rows):
    one = next(row for row in rows if row.job == "8")
    many = [one.model_copy(update={"row_id": f"{number:04d}"}) for number in range(900)]
    (lane,) = picture.draw(many).lanes
    assert lane.height == picture.LANE
    assert max(bar.y + bar.height for bar in lane.bars) <= lane.y + lane.height
    assert "The 500 that ran longest, of 900." in page.render(many)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, ""),
        (0, "0 s"),
        (0.4, "0.4 s"),
        (59.6, "1 min"),
        (192, "3 min 12 s"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations(seconds, expected):
    assert page.duration(seconds).replace(page.SPACE, " ") == expected


def test_gpu_hours_and_sizes():
    shown = [page.hours(value).replace(page.SPACE, " ") for value in (None, 0, 0.0004, 0.0837, 12.345, 1234.5)]
    assert shown == ["", "0", "< 0.001", "0.0837", "12.3", "1,234"]
    assert [page.size(value).replace(page.SPACE, " ") for value in (None, 252.4, 600000)] == [
        "",
        "252 MiB",
        "585.9 GiB",
    ]


def by_hand(folder):
    """As a user would, on a machine without Slurm."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": str(folder / "nothing"), "TZ": "UTC"}
    command = [sys.executable, str(ROOT / "scripts/timeline.py")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_by_hand(tmp_path):
    done = by_hand(project(tmp_path, mixed=given.MIXED_LOG))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "Slurm's accounting has no answer: sacct cannot be run (No such file or directory)\n"
    found = {row.job: row for row in manifests.read(tmp_path / "logs/timeline.parquet", JobRow)}
    assert set(found) == {"", "1", "2", "4", "5_1", "5_2", "7"}
    assert found["1"].started == found["1"].submitted  # not 40 s before its end, which was before that
    first = (tmp_path / "results/report/timeline.html").read_bytes()
    assert by_hand(tmp_path).returncode == 0
    assert (tmp_path / "results/report/timeline.html").read_bytes() == first


def test_a_damaged_table_is_one_line(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/timeline.parquet").write_text("no table")
    done = by_hand(tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"error: logs/timeline.parquet: cannot be read as a parquet table.*\n", done.stderr)


@pytest.fixture
def sacct(tmp_path, monkeypatch):
    """Put a program in the place of sacct."""

    def put(script):
        (tmp_path / "sacct").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "sacct").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    return put


def test_what_sacct_is_asked(tmp_path, sacct, monkeypatch):
    """In UTC, for duplicates too: a requeued job has several."""
    monkeypatch.setenv("TZ", "America/New_York")
    sacct(f'echo "$TZ $SLURM_TIME_FORMAT $*" >> {tmp_path}/asked')
    assert ask(["b", "a"], ["7"], at("10:00:00")) == []
    fields = ",".join(FIELDS)
    common = f"UTC standard --duplicates --clusters=all --parsable2 --noheader --format={fields} "
    lines = (tmp_path / "asked").read_text().splitlines()
    assert lines == [f"{common}{wanted} --starttime=2026-11-21T10:00:00" for wanted in ("--name=a,b", "--jobs=7")]


def test_sacct_that_fails(sacct):
    sacct("echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(Unavailable, match=r"^Slurm accounting storage is disabled$"):
        ask(["name"], [], at("10:00:00"))
