"""The rating page: nobody learns who made what, nothing that was answered is lost, and strangers get nowhere."""

import io
import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest
import rate_inputs
from werkzeug.test import Client

from regdpo.config import schema
from regdpo.config.stage_inputs import ImportsStage
from regdpo.core import manifests
from regdpo.core.digests import DigestCache, file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import AnswerRow, LabelRow
from regdpo.core.store import Store
from regdpo.data.video import read_frames
from regdpo.rate import items, label_studio
from regdpo.rate.answers import DATABASE, Answers, stored
from regdpo.rate.server import Application
from regdpo.stages import imports, rate

ROOT = Path(__file__).parents[2]
HERE = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return rate_inputs.make(tmp_path_factory.mktemp("rate"))


@pytest.fixture(scope="module")
def samples(made):
    return items.Samples(made.stage, made.samples, made.pairs)


@pytest.fixture(scope="module")
def found(made, samples):
    return rate.shown(made.stage, samples, {pair.clip_id: pair for pair in made.pairs}, made.store)


class Page(Client):
    """A browser that has opened the address."""

    def __init__(self, made, found, folder):
        self.answers = Answers(folder / "answers.sqlite")
        self.application = Application(self.answers, found, made.store, seed=0)
        super().__init__(self.application)
        assert self.get(f"/?token={self.answers.token}").status_code == 303

    def open(self, *args, **kwargs):
        return super().open(*args, **{"base_url": HERE, **kwargs})

    def ask(self, what, rater="ann", form="pair", **more):
        return self.post(f"/api/{what}", json={"rater": rater, "form": form, **more})

    def answer(self, rater, item, axis, answer, form="pair"):
        return self.ask("answer", rater, form, item=item, axis=axis, answer=answer, seconds=1.5)

    def all(self, rater, choose, form="pair"):
        """Answer everything; the states that were seen."""
        states = [self.ask("next", rater, form).json]
        while item := states[-1]["item"]:
            axis = next(it["axis"] for it in states[-1]["questions"] if it["axis"] not in item["said"])
            response = self.answer(rater, item["name"], axis, choose(item, axis), form)
            assert response.status_code == 200, response.text
            states.append(response.json)
        return states

    def turn(self, rater, name):
        """What the server knows of what was shown."""
        return self.application._turn(rater, name)


@pytest.fixture
def page(made, found, tmp_path):
    return Page(made, found, tmp_path)


def test_an_arm_is_shown_beside_the_base_model_that_it_was_trained_on(made):
    again = [row.model_copy(update={"model": f"base1/{row.model}"}) for row in made.samples if row.model != "real"]
    samples = items.Samples(made.stage, [*again, *made.samples], made.pairs)
    models = {(it.a.model, it.b.model) for it in items.pairs_shown(made.stage, samples) if it.a.arm == "sft"}
    assert models == {(f"{of}sft/seed{seed}", f"{of}base") for of in ("", "base1/") for seed in (0, 1)}


def test_every_comparison_is_balanced_over_the_sides_and_repeats_are_the_other_way_round(tmp_path):
    many = rate_inputs.make(tmp_path, prompts=9, repeats=0.5, gold=3)
    shown = items.pairs_shown(many.stage, items.Samples(many.stage, many.samples, many.pairs))
    orders = {rater: items.turns(shown, 0, rater) for rater in ("ann", "bob")}
    assert orders["ann"] == items.turns(list(reversed(shown)), 0, "ann") != orders["bob"]
    for order in orders.values():
        firsts = [turn for turn in order if not turn.item.repeat]
        left = Counter((turn.item.a.arm, turn.swapped) for turn in firsts)
        assert sorted(left.values()) == [4, 4, 5, 5]
        assert {turn.item.a.model for turn in firsts} == {"sft/seed0", "sft/seed1", "dpo/seed0", "dpo/seed1"}
        places = {turn.item.key: number for number, turn in enumerate(order)}
        sides = {turn.item.key: turn.swapped for turn in order}
        repeats = [turn.item for turn in order if turn.item.repeat]
        assert len(repeats) == 9
        for item in repeats:
            first = item.model_copy(update={"repeat": 0}).key
            assert places[first] < places[item.key]
            assert sides[first] != sides[item.key]


def test_a_gold_pair_is_a_real_clip_against_the_mosaic_of_another_prompts(made, found):
    gold = [item for item in found if item.gold]
    assert len(gold) == 2
    for item in gold:
        assert (item.a.arm, item.b.arm, item.gold) == ("real", "spoiled", "a")
        frames = read_frames(made.store.existing(item.b.path))
        square = frames[:, :8, :8].astype(int)
        assert abs(square - square[:, :1, :1]).max() < 12  # squares of one colour, but for what the codec adds
        others = [row for row in made.samples if row.model == "real" and row.clip_id != item.prompt_id]
        assert frames.shape == read_frames(made.store.existing(others[0].path)).shape


def test_where_all_captions_are_the_same_a_gold_clip_stands_against_its_own_mosaic(made):
    same = [pair.model_copy(update={"caption": "a train"}) for pair in made.pairs]
    chosen = items.gold_prompts(made.stage, items.Samples(made.stage, made.samples, same))
    assert [row == other for row, other in chosen] == [True, True]


def test_nothing_that_the_page_is_told_says_who_made_what(made, page):
    """All it is sent for a whole session, but for its own files and the pictures themselves."""
    states = page.all("ann", lambda item, axis: "same") + page.all("ann", lambda item, axis: "no", "clip")
    told = [json.dumps(state) for state in states]
    names = {state["item"]["name"]: state["item"] for state in states if state["item"]}
    for name, item in names.items():
        for which in (*item["sides"], "first"):
            response = page.get(f"/media/{name}/{which}?rater=ann")
            assert response.status_code == 200
            assert not {"ETag", "Last-Modified", "Content-Disposition"} & set(dict(response.headers))
            told.append(str(response.headers))
    text = "\n".join(told)
    for secret in (
        "sft",
        "dpo/",
        "seed",
        "base",
        "spoiled",
        "gold",
        "repeat",
        "clip0",
        *(row.path for row in made.samples),
    ):
        assert secret not in text.replace("base-uri", ""), secret
    assert not re.search(r"\breal\b", text)
    assert not any(row.sha256[:12] in text for row in made.samples)
    assert len(names) == 12 + 20
    order = [name for name in names if page.turn("ann", name).item.form == "pair"]
    assert order != sorted(order)


def test_answers_by_side_become_answers_by_arm(made, page, tmp_path):
    """Who always prefers the arm (of a gold pair the real clip) does so wherever it was shown."""

    def better(item, axis):
        turn = page.turn("ann", item["name"])
        return next(side for side in item["sides"] if turn.side(side) == turn.item.a)

    page.all("ann", better)
    page.all("ann", lambda item, axis: {"generated": "yes"}.get(axis, "no"), "clip")
    rows = page.answers.rows()
    assert len(rows) == 2 * 12 + 3 * 20
    manifests.write(tmp_path / "t.parquet", rows, AnswerRow)
    assert manifests.read(tmp_path / "t.parquet", AnswerRow) == sorted(rows, key=lambda row: row.key)
    pairs = [row for row in rows if row.form == "pair"]
    assert {row.answer for row in pairs} == {"a"}
    assert {row.left for row in pairs} == {"a", "b"}
    assert Counter((row.arm_a, row.arm_b, row.gold, row.repeat) for row in pairs if row.axis == "PF").total() == 12
    assert Counter(row.gold for row in pairs) == {"": 20, "a": 4}
    assert Counter(row.repeat for row in pairs) == {0: 20, 1: 4}
    clips = [row for row in rows if row.form == "clip"]
    assert {row.arm_a for row in clips} == {"real", "base", "sft", "dpo"}
    assert {(row.axis, row.answer) for row in clips} == {
        ("generated", "yes"),
        ("product", "no"),
        ("professional", "no"),
    }
    for row in rows:  # a source of pairs and labels: what was seen is in the store, with its prompt
        assert (
            row.caption
            == dict(zip([it.clip_id for it in made.pairs], rate_inputs.CAPTIONS, strict=True))[row.prompt_id]
        )
        for path, digest in ((row.path_a, row.sha256_a), (row.path_b, row.sha256_b)):
            assert not path or file_digest(made.store.existing(path)) == digest


def test_what_is_exported_are_pairs_that_the_importer_takes_and_labels(tmp_path, capsys):
    folder = rate_inputs.make(tmp_path, prompts=2, gold=1, repeats=0, comparisons=[["sft", "base"]])
    mine = items.Samples(folder.stage, folder.samples, folder.pairs)
    shown = rate.shown(folder.stage, mine, {pair.clip_id: pair for pair in folder.pairs}, folder.store)
    page = Page(folder, shown, tmp_path / "ratings")

    def better(rater, right):
        def choose(item, axis):
            turn = page.turn(rater, item["name"])
            if axis == "PF" and not turn.item.gold:
                return "same"
            return next(side for side in item["sides"] if (turn.side(side) == turn.item.a) == right)

        return choose

    page.all("ann", better("ann", True))
    page.all("bob", better("bob", False))  # of the gold pair too
    page.all("ann", lambda item, axis: {"generated": "no"}.get(axis, "yes"), "clip")
    page.all("cleo", lambda item, axis: "no", "clip")
    rate.export(folder.stage)
    assert "bob had 0 of 2 answers about gold pairs right, and is left out" in capsys.readouterr().err
    source = schema.PairSource(kind="csv", path=str(tmp_path / "ratings/pairs.csv"), root=str(folder.store.root))
    size = {"frames": 9, "fps": rate_inputs.FPS, "height": rate_inputs.SIZE[0], "width": rate_inputs.SIZE[1]}
    stage = ImportsStage(sources={"people": source}, clips=schema.Clips(**size))
    cache = DigestCache(tmp_path / "digests.json")
    rows = imports.import_shard(stage, "people", 0, 1, Store(tmp_path / "other"), cache)
    assert [row.status for row in rows] == ["accepted"] * 2, rows
    sft = {row.sha256: row for row in folder.samples if row.model.startswith("sft")}
    assert {sft[row.source_digest].clip_id for row in rows} == {"clip0", "clip1"}
    assert {row.group for row in rows} == {"clip0", "clip1"}
    assert {row.caption for row in rows} == {" ".join(text.split()) for text in rate_inputs.CAPTIONS[:2]}
    labels = manifests.read(tmp_path / "ratings/labels.parquet", LabelRow)
    assert len(labels) == 3 * 8  # base, sft, dpo and real, of two prompts
    assert {(row.question, row.yes, row.raters) for row in labels} == {
        ("generated", 0, 2), ("product", 1, 2), ("professional", 1, 2)
    }  # fmt: skip
    for row in labels:
        assert file_digest(folder.store.existing(row.path)) == row.sha256


def test_undo_takes_back_the_last_answer_of_the_form(page):
    first = page.ask("next").json["item"]["name"]
    assert page.ask("undo").status_code == 409
    page.answer("ann", first, "VQ", "left")
    second = page.answer("ann", first, "PF", "same").json["item"]["name"]
    assert second != first
    page.answer("bob", second, "VQ", "right")
    clip = page.ask("next", form="clip").json["item"]["name"]
    page.answer("ann", clip, "generated", "no", "clip")
    assert page.ask("undo").json["item"] | {"prompt": ""} == {
        "name": first, "prompt": "", "first": True, "sides": ["left", "right"], "said": {"VQ": "left"}
    }  # fmt: skip
    assert page.answer("ann", first, "PF", "right").json["item"]["name"] == second
    kept = {(row.rater, row.axis): row for row in page.answers.rows()}
    assert set(kept) == {("ann", "VQ"), ("ann", "PF"), ("bob", "VQ"), ("ann", "generated")}
    assert kept["ann", "PF"].answer != kept["ann", "PF"].left


def test_raters_at_once_lose_nothing_and_do_not_meet(page):
    def rated(rater):
        return len(page.__class__.all(page, rater, lambda item, axis: "same"))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rated, ["ann", "bob", "cleo", "dan"])) == [25] * 4
    assert Counter(row.rater for row in page.answers.rows()) == dict.fromkeys(["ann", "bob", "cleo", "dan"], 24)


JSON = {"Content-Type": "application/json"}
ASKED = json.dumps({"rater": "ann", "form": "pair"}).encode()


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "says"),
    [
        ("GET", "/media/../../../../etc/passwd/left", {}, None, 404, ""),
        ("GET", "/media/..%2f..%2f..%2f..%2fx/left?rater=ann", {}, None, 404, ""),
        ("GET", "/page.css/../answers.sqlite", {}, None, 404, ""),
        ("GET", "/media/0123456789abcdef/left?rater=ann", {}, None, 404, "load the page again"),
        ("GET", "/", {"Cookie": ""}, None, 403, "lacks the token"),
        ("GET", "/?token=guessed", {"Cookie": ""}, None, 403, "lacks the token"),
        ("GET", "/?token=%C3%A9", {"Cookie": ""}, None, 403, "lacks the token"),
        ("POST", "/api/next", {**JSON, "Cookie": ""}, ASKED, 403, "lacks the token"),
        ("GET", "/", {"Host": "evil.example:8765"}, None, 403, "127.0.0.1 and localhost alone"),
        ("GET", "/", {"Host": "127.0.0.1.evil.example"}, None, 403, "127.0.0.1 and localhost alone"),
        ("POST", "/api/next", {**JSON, "Origin": "http://evil.example"}, ASKED, 403, "Another site"),
        ("POST", "/api/next", {**JSON, "Origin": "null"}, ASKED, 403, "Another site"),
        ("POST", "/api/next", {"Content-Type": "text/plain"}, ASKED, 415, "Send JSON"),
        ("POST", "/api/next", JSON, b"{" + b" " * 5000 + ASKED[1:], 413, ""),
        ("POST", "/api/next", JSON, b"[" * 3000, 400, "Invalid JSON"),
        ("POST", "/api/next", JSON, b'{"rater": "ann", "form": "pair", "more": 1}', 400, "more: Extra inputs"),
        ("POST", "/api/next", JSON, b'{"rater": "   ", "form": "pair"}', 400, "1 to 60 characters"),
        ("POST", "/api/next", JSON, b'{"rater": "a\\u0000b", "form": "pair"}', 400, "1 to 60 characters"),
        ("POST", "/api/answer", JSON, b'{"rater": "ann", "form": "pair"}', 400, "item: Field required"),
        ("GET", "/api/next", {}, None, 405, ""),
    ],
)
def test_a_bad_request_is_refused_in_words_and_changes_nothing(page, method, path, headers, body, status, says):
    """As bytes of the wire have it: clients tidy paths up."""
    environ = {"REQUEST_METHOD": method, "wsgi.url_scheme": "http", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8765"}
    environ |= {"PATH_INFO": path.partition("?")[0].replace("%2f", "/"), "QUERY_STRING": path.partition("?")[2]}
    sent = {"Host": "127.0.0.1:8765", "Cookie": f"{page.application.cookie}={page.answers.token}", **headers}
    environ |= {f"HTTP_{name.upper()}": value for name, value in sent.items() if name != "Content-Type"}
    environ |= {"CONTENT_TYPE": sent.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body or b""))}
    environ["wsgi.input"] = io.BytesIO(body or b"")
    seen = []
    text = b"".join(page.application(environ, lambda code, headers: seen.append((int(code[:3]), dict(headers)))))
    assert (seen[0][0], says in text.decode()) == (status, True), (seen, text)
    assert "default-src 'none'" in seen[0][1]["Content-Security-Policy"]
    assert "Traceback" not in text.decode()
    assert not page.answers.rows()


def test_a_wrong_answer_is_refused(page):
    name = page.ask("next").json["item"]["name"]
    clip = page.ask("next", form="clip").json["item"]["name"]
    for item, axis, answer, form in (
        (name, "generated", "yes", "pair"),
        (name, "VQ", "a", "pair"),
        (clip, "VQ", "left", "pair"),
        (clip, "VQ", "left", "clip"),
    ):
        assert page.answer("ann", item, axis, answer, form).status_code == 400
    for seconds in (-1, float("nan"), "1e999"):
        assert page.ask("answer", item=name, axis="VQ", answer="left", seconds=seconds).status_code == 400
    assert not page.answers.rows()


@pytest.mark.parametrize("name", ['"ann" <b>', "O'Brien; DROP TABLE event", "安娜", "a/../b", "x" * 60])
def test_any_name_that_can_be_printed_is_a_raters(page, name):
    item = page.ask("next", name).json["item"]["name"]
    assert page.answer(name, item, "VQ", "same").status_code == 200
    assert [row.rater for row in page.answers.rows()] == [name]


def test_parts_of_a_video_are_sent_as_browsers_ask_for_them(made, page):
    name = page.ask("next").json["item"]["name"]
    whole = page.get(f"/media/{name}/left?rater=ann").data
    assert whole == made.store.existing(page.turn("ann", name).side("left").path).read_bytes()
    for asked, part in (("0-", whole), ("10-19", whole[10:20]), ("-7", whole[-7:])):
        response = page.get(f"/media/{name}/left?rater=ann", headers={"Range": f"bytes={asked}"})
        assert (response.status_code, response.data) == (206, part)
        assert response.headers["Content-Range"].endswith(f"/{len(whole)}")
    beyond = page.get(f"/media/{name}/left?rater=ann", headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")


def test_a_video_that_goes_missing_is_left_out_and_nothing_else(made, found, tmp_path, capsys):
    """Before the page is served it is one line; afterwards the rater may go on without it."""
    folder = rate_inputs.make(tmp_path, gold=0)
    mine = items.Samples(folder.stage, folder.samples, folder.pairs)
    shown = rate.shown(folder.stage, mine, {}, folder.store)
    page = Page(folder, shown, tmp_path)
    name = page.ask("next").json["item"]["name"]
    gone = folder.store.existing(page.turn("ann", name).side("right").path)
    gone.unlink()
    response = page.get(f"/media/{name}/right?rater=ann")
    assert (response.status_code, "its terminal says why" in response.text) == (503, True)
    assert f"{gone}: missing from the store" in capsys.readouterr().err
    page.answer("ann", name, "VQ", "skip")
    assert page.answer("ann", name, "PF", "skip").json["done"] == 1
    assert not page.answers.rows()
    with pytest.raises(UserError, match=f"{gone}: missing from the store although a manifest names it"):
        rate.shown(folder.stage, mine, {}, folder.store)


def test_what_is_no_database_of_answers_is_told(tmp_path):
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(UserError, match="text: cannot be used as a database of answers"):
        Answers(tmp_path / "text")
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("PRAGMA user_version=2")
    with pytest.raises(UserError, match=r"newer: is not a database .* this regdpo can read; set `paths\.ratings`"):
        Answers(tmp_path / "newer")
    for name, says in (("text", "cannot be used as a database"), ("newer", "this regdpo can read")):
        (tmp_path / name).rename(tmp_path / DATABASE)
        with pytest.raises(UserError, match=f"{DATABASE}: .*{says}"):
            stored(tmp_path)
    assert Answers(tmp_path / "mine").token == Answers(tmp_path / "mine").token
    assert (tmp_path / "mine").stat().st_mode & 0o77 == 0


def test_new_samples_are_new_questions_and_old_answers_stay(made, found, page, tmp_path):
    name = page.ask("next").json["item"]["name"]
    page.answer("ann", name, "VQ", "same")
    shown = page.turn("ann", name).item
    again = [it.model_copy(update={"a": it.a.model_copy(update={"sha256": "0" * 64})}) for it in found]
    later = Page(made, again, tmp_path)
    assert later.ask("next").json["done"] == 0
    (kept,) = later.answers.rows()
    assert kept.sha256_a == shown.a.sha256


@pytest.mark.parametrize(
    ("comparisons", "says"),
    [
        ([["sft", "nobody"]], "rating.comparisons: there is no nobody; there are base, real, sft, dpo"),
        ([["sft", "sft"]], r"rating.comparisons: \[sft, sft\] compares nothing"),
        ([["sft", "dpo"], ["dpo", "sft"]], r"rating.comparisons: \[dpo, sft\] compares nothing, or occurs twice"),
    ],
)
def test_who_is_compared_has_to_be_there(comparisons, says):
    with pytest.raises(UserError, match=says):
        schema.check({**rate_inputs.CONFIG, "rating": {"comparisons": comparisons}})


def task(**changes):
    result = [
        {"from_name": "vq", "type": "pairwise", "value": {"selected": "left"}},
        {"from_name": "PF", "type": "choices", "value": {"choices": ["same"]}},
    ]
    annotation = {"completed_by": {"id": 3, "email": "ann@x.org"}, "created_at": "2026-01-02T03:04:05.678+01:00"}
    annotation |= {"lead_time": 12.5, "result": result, "was_cancelled": False, "ground_truth": False}
    data = {"clip": "clip1", "left": "base", "right": "sft/seed1", "prompt": "anything"}
    return {"id": 7, "data": data, "annotations": [annotation, {**annotation, "was_cancelled": True}]} | changes


def test_answers_of_label_studio(made, samples, tmp_path):
    single = {"clip": "clip2", "video": "real"}
    said = [{"from_name": "generated", "type": "choices", "value": {"choices": ["No"]}}]
    by_number = [{"completed_by": 4, "created_at": "2026-01-02T00:00:00Z", "result": said}]
    (tmp_path / "ls.json").write_text(json.dumps([task(), task(id=8, data=single, annotations=by_number)]))
    answers = Answers(tmp_path / "answers.sqlite")
    assert label_studio.add(tmp_path / "ls.json", made.stage, samples, answers) == 3
    assert label_studio.add(tmp_path / "ls.json", made.stage, samples, answers) == 0
    rows = {row.axis: row for row in answers.rows()}
    vq = rows["VQ"]
    assert (vq.arm_a, vq.arm_b, vq.model_a, vq.left, vq.answer) == ("sft", "base", "sft/seed1", "b", "b")
    assert (vq.rater, vq.seconds, vq.origin) == ("ann@x.org", 12.5, "ls.json")
    assert vq.when == "2026-01-02T02:04:05.678000+00:00"
    assert (rows["PF"].answer, rows["generated"].answer) == ("same", "no")
    assert (rows["generated"].arm_a, rows["generated"].rater) == ("real", "user 4")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON export of Label Studio"),
        ([{"id": 1, "data": {}}], "0.data.clip: is no JSON export of Label Studio .Field required"),
        ([task(data={"clip": "clip1", "left": "base"})], "task 7: data needs `left` and `right`, or `video`"),
        ([task(data={"clip": "clip1", "left": "base", "right": "you"})], "task 7: you: is no model's name"),
        ([task(data={"clip": "../x", "left": "base", "right": "sft/seed0"})], "task 7: .* has no sample of clip ../x"),
        ([task(data={"clip": "clip1", "video": "base"})], "task 7: from_name 'vq' is none of generated, product"),
        (
            [
                task(),
                task(id=9, annotations=[{**task()["annotations"][0], "result": [{"from_name": "VQ", "value": {}}]}]),
            ],
            "task 9: VQ: {} is none of left, same, right",
        ),
    ],
)
def test_an_import_that_does_not_fit_is_told_and_adds_nothing(made, samples, tmp_path, content, says):
    (tmp_path / "ls.json").write_text(content if isinstance(content, str) else json.dumps(content))
    answers = Answers(tmp_path / "answers.sqlite")
    with pytest.raises(UserError, match=f"{tmp_path}/ls.json.*{says}"):
        label_studio.add(tmp_path / "ls.json", made.stage, samples, answers)
    assert not answers.rows()


def started(config, port):
    """The page's process, and the port and the token that it says."""
    command = [sys.executable, str(ROOT / "scripts/rate.py"), "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    while not (found := re.search(r"^open http://127\.0\.0\.1:(\d+)/\?token=(\S+)$", "".join(said), re.M)):
        said.append(process.stderr.readline())
        assert said[-1], said
    return process, int(found[1]), found[2]


def test_a_killed_page_loses_no_answer_and_its_address_stays_good(tmp_path):
    folder = rate_inputs.make(tmp_path, prompts=2, gold=0, repeats=0)
    process, port, token = started(folder.config, 0)

    def ask(what, **more):
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        body = json.dumps({"rater": "ann", "form": "pair", **more})
        cookie = f"{Application.cookie_of(token)}={token}"
        connection.request(
            "POST", f"/api/{what}", body, {**JSON, "Cookie": cookie, "Origin": f"http://127.0.0.1:{port}"}
        )
        response = connection.getresponse()
        assert response.status == 200
        return json.load(response)

    try:
        name = ask("next")["item"]["name"]
        ask("answer", item=name, axis="VQ", answer="left", seconds=1)
        taken = subprocess.run([*process.args[:-1], str(port)], capture_output=True, text=True)
        assert (taken.returncode, taken.stderr.splitlines()[-1]) == (
            2, f"error: port {port}: Address already in use; give another with --port"
        )  # fmt: skip
    finally:
        process.kill()
        process.wait()
    left = {path.name: path.read_bytes() for path in (tmp_path / "ratings").iterdir()}
    assert [row.axis for row in stored(tmp_path / "ratings")] == ["VQ"]  # as the workflow reads it
    assert left["answers.sqlite"] == (tmp_path / "ratings/answers.sqlite").read_bytes()
    process, _, again = started(folder.config, port)
    try:
        assert again == token
        assert ask("next")["item"] | {"prompt": ""} == {
            "name": name, "prompt": "", "first": True, "sides": ["left", "right"], "said": {"VQ": "left"}
        }  # fmt: skip
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "1 answers" in process.stderr.read()
    finally:
        process.kill()
    (row,) = manifests.read(tmp_path / "ratings/answers.parquet", AnswerRow)
    kept = sorted((tmp_path / "ratings").iterdir())
    assert stored(tmp_path / "ratings") == [row]
    assert sorted((tmp_path / "ratings").iterdir()) == kept  # no log of SQLite's beside it
    (tmp_path / "ratings/answers.sqlite").unlink()
    assert stored(tmp_path / "ratings") == [row]
    assert (row.rater, row.axis, row.answer == row.left) == ("ann", "VQ", True)
