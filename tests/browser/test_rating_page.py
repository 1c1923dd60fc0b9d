"""The rating page in a real browser, by keyboard alone, from the first key to the numbers in the report."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import rate_inputs
import report_inputs
from chromium import CHROMIUM

from regdpo.config import stage_inputs
from regdpo.core import manifests
from regdpo.core.rows import AnswerRow
from regdpo.stages import answers, report

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (make installs it: envs/dev.lock)")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def pages(tmp_path):
    """What the report's page is made of; the rating page shows the same samples."""
    return report_inputs.make(tmp_path)


@pytest.fixture
def made(pages):
    return rate_inputs.of_report(pages)


def reported(pages, made) -> Path:
    """The page, once the answers were taken in, as the workflow does it."""
    taken = stage_inputs.read(stage_inputs.AnswersStage, made.config)
    rows = answers.about(taken, made.samples)
    manifests.write(pages.files.answers, rows, AnswerRow)
    others = [row for row in pages.scores if not row.metric.startswith("people")]
    pages.write_scores([*others, *answers.scores(taken, made.samples, rows, made.store)])
    out = made.root / "report/index.html"
    stage = stage_inputs.read(stage_inputs.ReportStage, made.config)
    report.write(stage, made.store, pages.files, {}, out, out.with_name("report.json"))
    return out


def serve(config, port=0):
    """The page's process, and its address."""
    command = [sys.executable, str(ROOT / "scripts/rate.py"), "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if found := re.match(r"open (\S+)", line):
            return process, found[1]
    raise AssertionError(process.wait())


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium, or Chrome")
def test_a_rating_session_by_keyboard_ends_in_the_report(pages, made):
    server, address = serve(made.config)
    port = address.split(":")[2].partition("/")[0]
    try:
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 390, "height": 844})
            troubles, requests = [], []
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("console", lambda it: troubles.append(it.text) if it.type in ("error", "warning") else None)
            page.on("request", lambda it: requests.append(it.url))
            page.goto(address)
            assert page.url == f"http://127.0.0.1:{port}/"  # the token is not left in the history
            page.keyboard.type("Ann")  # the name is what has the focus
            page.keyboard.press("Enter")
            expect, ready = playwright.expect, page.locator(".current button:not(:disabled)")

            expect(ready).to_have_count(3)
            assert page.evaluate("document.activeElement.id") == "question-VQ"
            tree = page.locator("#rating").aria_snapshot()
            for said in (
                "1 of 2",
                'img "The first frame',
                'group "Video quality"',
                'button "Left 1"',
                'heading "What was asked for"',
            ):
                assert said in tree, tree
            assert page.locator("video").evaluate_all("all => all.map(it => it.getAttribute('aria-label'))") == [
                "Left video", "Right video"
            ]  # fmt: skip
            assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
            keys = page.get_by_role("checkbox", name="Single keys")  # WCAG 2.1.4
            keys.focus()
            page.keyboard.press("Space")
            expect(page.get_by_role("status")).to_have_text("Single keys are off.")
            assert not page.locator("[aria-keyshortcuts]").count()
            page.keyboard.press("1")
            page.keyboard.press("z")
            keys.focus()
            page.keyboard.press("Space")
            expect(page.get_by_role("status")).to_have_text("Single keys are on.")
            assert "1 of 2" in page.locator("#count").inner_text()
            assert not page.locator("[aria-pressed=true]").count()  # nothing was answered

            both = "all => Math.max(...all.map(it => it.currentTime)) - Math.min(...all.map(it => it.currentTime))"
            page.locator("video").evaluate_all(
                "all => Promise.all(all.map(it => new Promise(go => it.ontimeupdate = go)))"
            )
            assert page.locator("video").evaluate_all(both) < 0.2
            page.keyboard.press("1")
            expect(page.get_by_role("status")).to_have_text("Video quality: Left.")
            expect(page.locator("#question-PF")).to_be_focused()
            page.keyboard.press("2")
            expect(page.locator("#count")).to_have_text("2 of 2")
            expect(ready).to_have_count(3)
            page.keyboard.press("z")
            expect(page.locator("#count")).to_have_text("1 of 2")
            expect(page.locator("#question-VQ button[aria-pressed=true]")).to_have_text("Left")
            expect(ready).to_have_count(3)
            page.keyboard.press("3")
            expect(page.locator("#count")).to_have_text("2 of 2")
            expect(ready).to_have_count(3)

            assert not troubles
            server.kill()
            server.wait()
            page.keyboard.press("2")
            expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
            server, _ = serve(made.config, port)
            expect(page.locator("#question-PF")).to_be_focused(timeout=20_000)
            page.keyboard.press("2")
            expect(page.locator("#all")).to_have_text("All 2 are done.")
            for key in ("Tab", "Tab", "Enter", "Tab", "ArrowDown", "Enter"):  # something else, single videos, begin
                page.keyboard.press(key)
            for (
                key
            ) in "2122z2":  # not generated, kept, not professional; the last answer is of the next, and taken back
                expect(ready).to_have_count(2)
                page.keyboard.press(key)
                page.wait_for_timeout(150)
            expect(page.locator("#count")).to_have_text("2 of 10")
            assert {url.split("/")[2] for url in requests if not url.startswith("data:")} == {f"127.0.0.1:{port}"}
            server.terminate()
            assert server.wait(20) == 0
            page.goto(reported(pages, made).as_uri())
            numbers = "all => all.map(row => [...row.cells].slice(0, 4).map(it => it.innerText))"
            told = [
                page.get_by_role("region", name=f"Comparisons by people, {axis}")
                .locator("tbody tr")
                .evaluate_all(numbers)
                for axis in ("VQ", "PF")
            ]
            clips = (
                page.get_by_role("region", name="Single clips")
                .locator("tbody tr")
                .evaluate_all("all => all.map(row => [...row.cells].slice(1).map(it => it.innerText.split(' [')[0]))")
            )
            browser.close()
    finally:
        server.terminate()
        assert server.wait(20) == 0
    every = manifests.read(made.root / "ratings/answers.parquet", AnswerRow)
    clip_answers = Counter((row.axis, row.answer) for row in every if row.form == "clip")
    assert clip_answers == {("generated", "no"): 2, ("product", "yes"): 1, ("professional", "no"): 1}
    assert [row for row in clips if len(row) == 3] == [["100 % 1 of 1,", "0 % 0 of 1,", "1"]]
    rows = [row for row in every if row.form == "pair"]
    assert Counter((row.rater, row.axis) for row in rows) == {("Ann", "VQ"): 2, ("Ann", "PF"): 2}
    first = [row for row in rows if row.answer != "same"]
    assert {(row.axis, row.answer == row.left) for row in first} == {("VQ", True), ("PF", False)}
    assert {(row.arm_a, row.arm_b) for row in rows} == {("sft", "base")}
    assert all(row.seconds > 0 for row in rows)
    sided = {row.axis: row.answer for row in first}
    good_same_bad = {"a": ["1", "1", "0"], "b": ["0", "1", "1"]}  # of two prompts one is the same
    assert told == [[["sft against base", *good_same_bad[sided[axis]]]] for axis in ("VQ", "PF")]
