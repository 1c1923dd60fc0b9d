"""Best of N: prompts, which videos of a prompt make pairs, and VideoDPO's weights."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
import toy_family
from tables import frame, rows_of

from regdpo.config.schema import Candidates, PairSource, PairWeights
from regdpo.config.stage_inputs import CandidatesStage, PairsStage
from regdpo.core.errors import UserError
from regdpo.core.rows import (
    CandidateRow,
    CaptionRow,
    ClipRow,
    Geometry,
    ImportedRow,
    NegativeRow,
    PairRow,
    PlaceRow,
    ScoreRow,
)
from regdpo.core.store import Store
from regdpo.data import prompt_lists, ranking
from regdpo.evaluate import proxies
from regdpo.evaluate.measures import Given, measures_of
from regdpo.models.registry import FAMILIES
from regdpo.models.spec import ModelFile, ModelRef
from regdpo.stages import candidates as stage_of_candidates
from regdpo.stages import pairs, samples

CPU = torch.device("cpu")
SCORES = [[0.9, 0.1, 0.5, 0.3], [0.2, 0.2, 0.2, 0.2], [0.31, 0.39, 0.35, 0.90]]
"""Of the videos of three prompts."""


def rows() -> list[CandidateRow]:
    fixed = {"origin": "ranked", "split": "train", "source": "s", "caption": "c", "generator": "base", "model": "m"}
    fixed |= {"frames": 5, "fps": 8.0, "width": 32, "height": 32}
    return [
        CandidateRow(
            candidate_id=f"ranked.p{prompt}.c{n}", prompt_id=f"ranked.p{prompt}", number=n, seed=n,
            path=f"{prompt}{n}.mp4", sha256=f"{prompt}{n}", **fixed,
        )
        for prompt in range(3)
        for n in range(4)
    ]  # fmt: skip


def scored(metric: str = "sharpness", scores: list[list[float]] = SCORES) -> list[ScoreRow]:
    return [
        proxies.row("candidates", metric, f"ranked.p{prompt}", n, value)
        for prompt, values in enumerate(scores)
        for n, value in enumerate(values)
    ]


def chosen(weights: dict | None = None, found: list[CandidateRow] | None = None, **settings: object) -> pd.DataFrame:
    source = PairSource.model_validate(
        {"kind": "best_of_n", "candidates": {"score": {"sharpness": 1}, **settings}, "weights": weights}
    )
    return ranking.choose("ranked", source, frame(found or rows(), CandidateRow), frame(scored(), ScoreRow))[0]


def both(**settings: object) -> list[tuple[str, str]]:
    return [(a.removesuffix(".mp4"), b.removesuffix(".mp4")) for a, b in chosen(**settings)[["winner", "loser"]].values]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, [("00", "01"), ("23", "20")]),  # all of the second prompt are as good
        ({"policy": "adjacent"}, [("00", "02"), ("02", "03"), ("03", "01"), ("23", "21"), ("21", "22"), ("22", "20")]),
        ({"policy": [0, 2]}, [("00", "03"), ("23", "22")]),
        ({"policy": [[0, 1], [1, 3]]}, [("00", "02"), ("02", "01"), ("23", "21"), ("21", "20")]),
        ({"policy": "adjacent", "margin": 0.3}, [("00", "02"), ("23", "21")]),  # .9 - .5, .9 - .39
        ({"most": 0.2}, [("00", "01")]),
        ({"policy": "adjacent", "least": 0.5}, [("00", "02"), ("02", "03"), ("23", "21")]),
    ],
)
def test_which_videos_of_a_prompt_make_pairs(settings, wanted):
    assert both(**settings) == wanted


def test_the_best_against_one_drawn_of_the_others():
    assert [winner for winner, _ in both(policy="best_random")] == ["00", "23"]
    assert both(policy="best_random") == both(policy="best_random")
    assert all(loser[0] == winner[0] and loser != winner for winner, loser in both(policy="best_random"))


def test_rejected_videos_take_no_part_and_ranks_that_are_then_missing_make_no_pair():
    found = [row.model_copy(update={"status": "rejected"} if row.sha256 in ("00", "01") else {}) for row in rows()]
    assert [*chosen(found=found)["winner"]] == ["02.mp4", "23.mp4"]
    assert [*chosen(found=found, policy=[1, 3])["winner"]] == ["21.mp4"]


def test_a_sum_of_scores_and_their_scales():
    """Two metrics of which the second is a thousand times as large: by its scale only that decides."""
    other = [[1000.0 * (n == 1) for n in range(4)] for _ in range(3)]
    there = frame([*scored(), *scored("motion", other)], ScoreRow)
    table = frame(rows(), CandidateRow)

    def of(scale: str) -> np.ndarray:
        return ranking.totals("ranked", Candidates(score={"sharpness": 2.0, "motion": -0.5}, scale=scale), table, there)

    first, second = np.ravel(SCORES), np.ravel(other)
    assert np.allclose(of("as_is"), 2 * first - 0.5 * second)
    assert np.allclose(of("min_max"), 2 * (first - 0.1) / 0.8 - 0.5 * second / 1000)
    z = [(it - it.mean()) / it.std() for it in (first, second)]
    assert np.allclose(of("z"), 2 * z[0] - 0.5 * z[1])
    with pytest.raises(UserError, match=r"sources.ranked.candidates.score: ranked.p0.c0 has no psnr"):
        ranking.totals("ranked", Candidates(score={"psnr": 1}), table, there)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, "auto"), (0.72, "auto"), (1.0, 0.72), (0.0, "auto")])
def test_weights_are_videodpos_by_a_histogram_made_another_way(alpha, beta):
    """numpy's histogram over all videos, those of equal scores too; beta / sqrt(p p) to the power of alpha."""
    found = chosen({"alpha": alpha, "beta": beta, "bin": 0.1})
    counts, edges = np.histogram(np.ravel(SCORES) + 1e-9, bins=np.arange(0, 1.01, 0.1))
    share = counts / counts.sum()

    def p(score: float) -> float:
        return share[np.searchsorted(edges, score + 1e-9, "right") - 1]

    beta = share.max() if beta == "auto" else beta
    wanted = [(beta / np.sqrt(p(w) * p(b))) ** alpha for w, b in ((0.9, 0.1), (0.9, 0.31))]
    assert np.allclose(found["weight"], wanted)
    assert (np.ptp(found["weight"]) > 0) == (alpha > 0)


def test_weights_of_the_written_example():
    """Ten videos, bins of .01: p = .4, .1; beta auto = .4, so that .4 / sqrt(.04) = 2."""
    every = pd.Series([0.29] * 4 + [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    found = ranking.weights(PairWeights(), every, pd.Series([1.0, 1.0]), pd.Series([0.29, 0.5]))
    assert np.allclose(found, [2.0, 4.0])


def test_prompts_of_a_text_file_and_of_vidproms_table(tmp_path):
    (tmp_path / "a.txt").write_text("a dog\n\n a cat \na dog\n")
    (tmp_path / "b.csv").write_text('uuid,prompt,time\n1,a dog,x\n2,"a cat",y\n3,a dog,z\n')
    pq.write_table(pa.table({"uuid": ["1", "2", "3"], "prompt": ["a cat", "a dog", None]}), tmp_path / "c.parquet")
    found = [prompt_lists.read(tmp_path / name) for name in ("a.txt", "b.csv", "c.parquet")]
    assert sorted(found[0].values()) == ["a cat", "a dog"]
    assert found[0] == found[1] == found[2]
    (tmp_path / "f.CSV").write_text(f"uuid,prompt\n1,{'y' * 200_000}\n")
    assert [*map(len, prompt_lists.read(tmp_path / "f.CSV").values())] == [200_000]
    (tmp_path / "d.csv").write_text("text\na dog\n")
    with pytest.raises(UserError, match=r"d.csv: has no column prompt"):
        prompt_lists.read(tmp_path / "d.csv")
    (tmp_path / "e.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"e.txt: holds no prompt"):
        prompt_lists.read(tmp_path / "e.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"uuid,prompt\n1,a cat\n\n2,a dog, running\n", r"row 2, which ends in line 4: has more columns than"),
        (
            "a.csv",
            b"prompt,time\na dog\n",
            r"row 1, which ends in line 2: has fewer columns than the first line \(1 and not 2",
        ),
        ("a.csv", b"prompt,prompt\na,b\n", r"has 2 columns prompt; keep one"),
        ("a.csv", b'prompt\n"a dog\na cat\n', r"row 1, which begins in line 2: a quote is not closed"),
        ("a.csv", b"Prompt\na dog\n", r"no column prompt; its columns are Prompt; is 'Prompt' meant\?"),
        ("a.csv", b"uuid;prompt\n1;a dog\n", r"its columns are uuid;prompt; columns are told apart by commas"),
        ("a.csv", "prompt\na dog\ncaf\xe9\n".encode("latin-1"), r"line 3: is not text in UTF-8; save"),
        ("a.txt", b"a dog\na\0cat\n", r"row 2: holds null bytes"),
        ("a.jsonl", b'{"prompt": "a dog"}\n', r"is no list of prompts; give a text file"),
    ],
)
def test_what_is_no_list_of_prompts_is_told_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as told:
        prompt_lists.read(tmp_path / name)
    assert str(told.value).isprintable()


def test_ends_of_lines_and_marks_are_no_part_of_a_prompt(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfprompt,x\r\n"a\r\ndog",\r\n,\r\n\r\na cat,\r\n')
    (tmp_path / "a.txt").write_bytes("\ufeffa\u2028dog\r\n \r\na cat".encode())
    for name in ("a.csv", "a.txt"):
        assert sorted(prompt_lists.read(tmp_path / name).values()) == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": [0, 4]}, r"ranks \[0, 4\] are no two of 4 videos"),
        ({"policy": [2, 1]}, r"ranks \[2, 1\]"),
        ({"policy": [0, 1, 2]}, r"two ranks make a pair"),
        ({"score": {"sharpness": 0}}, "no metric has a weight"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Candidates.model_validate({"score": {"sharpness": 1}, **settings})


def test_scores_are_metrics_of_single_videos_that_are_measured():
    assert measures_of("k", ["sharpness", "motion"], (), "t2v") == ["proxies"]
    for name in ("psnr", "frechet", "held_out_error", "clip_score", "people_vq"):
        with pytest.raises(UserError, match=rf"^k: {name} is no metric of single videos"):
            measures_of("k", [name], (), "t2v")
    assert measures_of("k", ["psnr", "clip_score"], ("clip_score",), "i2v") == ["proxies", "clip_score"]


@pytest.fixture
def toy(tmp_path, monkeypatch) -> ModelFile:
    monkeypatch.setitem(FAMILIES, "toy", toy_family.DECLARED)
    toy_family.save(tmp_path / "model")
    ref = ModelRef(
        family="toy", task="t2v", where="folder", path=str(tmp_path / "model"), fps=8.0, text_length=8, digest="toy"
    )
    return ModelFile(name="base", ref=ref, digest="toy")


@pytest.mark.parametrize("listed", [True, False])
def test_from_prompts_to_pairs(toy, tmp_path, listed):
    """Of a list and of captions: videos, their scores by a real measure, pairs. No split has a prompt of another, a pair
    stands for no clip, and samples are not held against it where there is footage."""
    store = Store(tmp_path / "store")
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {n}" for n in range(12)))
    stage = CandidatesStage.model_validate(
        {
            "source": "ranked", "candidates": {"count": 3, "prompts": str(tmp_path / "prompts.txt") if listed else None,
            "score": {"any": 1}}, "sampling": {"steps": 2, "guidance": 1.0}, "encode": {}, "known": [],
            "geometry": {"frames": 9, "fps": 8.0, "width": 32, "height": 32},
            "pairs": {"validation": 0.3, "test": 0.3},
        }
    )  # fmt: skip
    of = tiny.pairs(store, 5)
    if listed:
        prompts = [it for shard in range(2) for it in stage_of_candidates.of_file(stage, shard, 2)]
        assert len(prompts) == 12
        assert {split for *_, split in prompts} == {"train", "validation", "test"}
    else:
        clips = [
            ClipRow(
                clip_id=it.clip_id, status="accepted", source="a", source_digest="", path=it.winner,
                sha256=it.winner_sha256, **Geometry.of_row(it).model_dump(),
            )
            for it in of
        ]  # fmt: skip
        places = {it.clip_id: PlaceRow(clip_id=it.clip_id, split=it.split) for it in of[:4]}
        said = [CaptionRow(clip_id=it.clip_id, caption=it.caption, captioner="t") for it in of]
        prompts = stage_of_candidates.of_clips(stage, clips, said, places)
        assert [key for key, *_ in prompts] == [it.clip_id for it in of[:4]]
    made = stage_of_candidates.render(stage, toy, prompts, store, CPU)
    assert len({row.sha256 for row in made if row.status == "accepted"}) > len(prompts)
    good = [row for row in made if row.status == "accepted"]
    measured = proxies.measure(Given(store, "cpu", samples=tuple(row.sample() for row in good)))
    assert ("psnr" in {row.metric for row in measured}) != listed
    told = PairsStage.model_validate(
        {
            "pairs": {}, "frames": 9, "known": [], "alone": False,
            "ranked": {"ranked": {"kind": "best_of_n", "candidates": {"count": 3, "score": {"motion": 1}}, "weights": {}}},
        }
    )  # fmt: skip
    table, lines = pairs.ranked(told, frame(made, CandidateRow), frame(measured, ScoreRow))
    if listed:
        built = rows_of(pairs.build(told, frame([], ClipRow), frame([], CaptionRow), frame([], NegativeRow), [],
                                    frame([], ImportedRow), ranked=table)[0], PairRow)  # fmt: skip
        assert {row.pair_id for row in built} == {*table["pair_id"]}
        assert {row.origin for row in built} == {"ranked"}
        prompts_of = {split: {row.caption for row in built if row.split == split} for split in ("train", "test")}
        assert not prompts_of["train"] & prompts_of["test"]
        held = samples.Samples(split="test")
        gt = built[0].model_copy(update={"origin": "gt", "split": "test", "pair_id": "g", "clip_id": "g"})
        assert samples.chosen(held, [*built, gt], ["ranked"]) == [gt]
        assert len(samples.chosen(held, built, ["ranked"])) == len(prompts_of["test"])
    assert lines[0].startswith(f"{len(table)} pairs of ranked")
    by_id = {(row.clip_id, row.seed): row.value for row in measured if row.metric == "motion"}
    numbers = {row.sha256: (row.prompt_id, row.number) for row in good}
    for winner, loser in table[["winner_sha256", "loser_sha256"]].values:
        assert by_id[numbers[winner]] > by_id[numbers[loser]]
