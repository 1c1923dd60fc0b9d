"""VideoScore2, VideoReward and HPS v3 up to the models' door: real loading code on tiny random models, in the environment
that `make captioning` makes. What they say of these is nonsense."""

import json
import runpy
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from regdpo.config import schema
from regdpo.config.evaluation import Hps3, Scores, VideoReward, VideoScore2
from regdpo.config.stage_inputs import JudgeStage
from regdpo.core.digests import file_digest
from regdpo.core.errors import UserError
from regdpo.core.rows import SampleRow
from regdpo.core.store import Store
from regdpo.data import video
from regdpo.evaluate.measures import Given

pytestmark = pytest.mark.skipif(
    not find_spec("num2words"),
    reason="torchvision is not installed here; `make test` runs these once more in .venv-captioning",
)

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "tiny_qwen.py"))["make"]
QUESTION = "Shown for {prompt}. VQ <|VQ_reward|> MQ <|MQ_reward|> TA <|TA_reward|>"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with one sample of one clip."""
    store = Store(tmp_path_factory.mktemp("samples") / "store")
    path = store.relative("clips", "aa", ".mp4")
    frames = np.random.default_rng(0).integers(0, 255, (9, 8, 8, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    with store.writing(path) as file:
        video.write_frames(file, frames, 16, schema.Encode())
    sha256 = file_digest(store.resolve(path))
    sample = SampleRow(
        sample_id="a", model="base", clip_id="a", seed=0, steps=1, guidance=1, shift=None, path=path, sha256=sha256,
        real=path, real_sha256=sha256,
    )  # fmt: skip
    return store, sample


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2")
    MAKE("qwen2_vl", folder)
    return folder


def given(world, caption: str = "a cat", **sections) -> Given:
    store, sample = world
    pairs = {"a": SimpleNamespace(caption=caption, fps=16.0)}
    return Given(store, "cpu", stage=JudgeStage(scores=Scores(**sections)), samples=(sample,), pairs=pairs)


def published(qwen2, folder: Path, tokens: int, head: dict) -> dict:
    """Tensors by the names that transformers had when the reward models were published, other than the base's."""
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    torch.manual_seed(1)
    model = Qwen2VLForConditionalGeneration.from_pretrained(qwen2)
    words = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(words + tokens, mean_resizing=False)
    state = {}
    for name, tensor in model.state_dict().items():
        old = name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        state[old] = (tensor + 0.01 * torch.randn_like(tensor)).clone()
    return state | head


def expected(qwen2, state: dict, caption: str, tokens: list[str], frames, question: str, video_of: bool):
    """States at the tokens, by transformers' model of the same tensors, its language model called with plain positions
    and with the picture's features put in by hand."""
    import torch
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(qwen2)
    processor.tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    model = Qwen2VLForConditionalGeneration.from_pretrained(qwen2)
    model.resize_token_embeddings(len(state["model.embed_tokens.weight"]), mean_resizing=False)
    today = {
        (f"model.{name}" if name.startswith("visual") else name.replace("model.", "model.language_model.")): tensor
        for name, tensor in state.items()
        if not name.startswith("rm_head")
    }
    model.load_state_dict(today)
    kind = "video" if video_of else "image"
    content = [{"type": kind}, {"type": "text", "text": question.replace("{prompt}", caption)}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    seen = (
        {
            "videos": [frames],
            "video_metadata": [VideoMetadata(total_num_frames=9, fps=16.0, frames_indices=[0, 8])],
            "do_sample_frames": False,
        }
        if video_of
        else {"images": [frames]}
    )
    inputs = processor(text=[text], **seen, return_tensors="pt")
    ids = inputs["input_ids"]
    with torch.inference_mode():
        pixels, grid = (
            (inputs["pixel_values_videos"], inputs["video_grid_thw"])
            if video_of
            else (inputs["pixel_values"], inputs["image_grid_thw"])
        )
        features = model.model.visual(pixels, grid_thw=grid).pooler_output
        embeddings = model.get_input_embeddings()(ids).clone()
        place = model.config.video_token_id if video_of else model.config.image_token_id
        embeddings[ids == place] = features
        states = model.model.language_model(
            inputs_embeds=embeddings, position_ids=torch.arange(ids.shape[1])[None], use_cache=False
        ).last_hidden_state[0]
    known = processor.tokenizer.convert_tokens_to_ids(tokens)
    return torch.stack([states[ids[0].tolist().index(token)] for token in known])


def test_video_reward_reads_its_head_at_its_tokens(world, qwen2, tmp_path):
    """Adapters merged, positions of plain text, each token its own output, numbers normalised."""
    import torch
    from safetensors.torch import save_file

    from regdpo.evaluate import rewards

    head = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    state = published(qwen2, tmp_path, 3, {"rm_head.weight": head})
    low, high = torch.randn(2, 64), torch.randn(64, 2)
    layer = "model.layers.0.self_attn.q_proj"
    peft = {}
    for name, tensor in state.items():
        if name == f"{layer}.weight":
            peft[f"base_model.model.{layer}.base_layer.weight"] = tensor
            peft[f"base_model.model.{layer}.lora_A.default.weight"] = low
            peft[f"base_model.model.{layer}.lora_B.default.weight"] = high
        elif name == "rm_head.weight":
            peft["base_model.model.rm_head.original_module.weight"] = torch.zeros_like(tensor)
            peft["base_model.model.rm_head.modules_to_save.default.weight"] = tensor
        else:
            peft[f"base_model.model.{name}"] = tensor
    weights = tmp_path / "checkpoint" / "model.pth"
    weights.parent.mkdir()
    torch.save(peft, weights)
    told = {
        "peft_lora_config": {"lora_alpha": 4, "use_rslora": False},
        "inference_config": {"VQ_mean": 1.0, "VQ_std": 2.0},
    }
    (tmp_path / "model_config.json").write_text(json.dumps(told))
    (tmp_path / "question.txt").write_text(QUESTION)
    settings = VideoReward(model=str(qwen2), weights=str(weights), prompt=str(tmp_path / "question.txt"), fps=2)
    found = {row.metric: row.value for row in rewards.video_reward(given(world, video_reward=settings))}
    store, sample = world
    frames = video.read_frames(store.resolve(sample.path))[[0, 8]]
    state[f"{layer}.weight"] = state[f"{layer}.weight"] + high @ low * 4 / 2
    states = expected(qwen2, state, "a cat", list(rewards.VIDEO_TOKENS), frames, QUESTION, video_of=True)
    vq, mq, ta = (states @ head.T).diagonal().tolist()
    assert found == pytest.approx(
        {"video_reward_vq": (vq - 1) / 2, "video_reward_mq": mq, "video_reward_ta": ta}, abs=1e-3
    )
    again = rewards.video_reward(given(world, "a <|TA_reward|> cat <|vision_start|>", video_reward=settings))
    assert all(np.isfinite(row.value) for row in again)  # a caption speaks no token of the model's
    (tmp_path / "model_config.json").unlink()
    with pytest.raises(UserError, match=r"holds adapters, and .* does not say their alpha"):
        rewards.video_reward(given(world, video_reward=settings))
    save_file({"rm_head.weight": torch.zeros(3, 9)}, tmp_path / "other.safetensors")
    wrong = settings.model_copy(update={"weights": str(tmp_path / "other.safetensors")})
    message = r"^scores.video_reward.weights: no head from 64 numbers to 3 \(rm_head.weight \(3, 9\)\)"
    with pytest.raises(UserError, match=message):
        rewards.video_reward(given(world, video_reward=wrong))
    (tmp_path / "question.txt").write_text("{prompt} <|VQ_reward|>")
    with pytest.raises(UserError, match=r"has to hold <\|MQ_reward\|> once"):
        rewards.video_reward(given(world, video_reward=settings))


def test_hps3_is_the_mean_over_frames(world, qwen2, tmp_path):
    """Three layers with ReLU between, of which the first output counts."""
    import torch
    from safetensors.torch import save_file

    from regdpo.evaluate import rewards

    torch.manual_seed(3)
    layers = torch.nn.Sequential(
        torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Dropout(0.05), torch.nn.Linear(8, 4), torch.nn.ReLU(),
        torch.nn.Linear(4, 2),
    ).eval()  # fmt: skip
    state = published(
        qwen2, tmp_path, 1, {f"rm_head.{name}": value.detach() for name, value in layers.state_dict().items()}
    )
    state.pop("lm_head.weight", None)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "HPSv3.safetensors")
    (tmp_path / "question.txt").write_text("of {prompt}: <|Reward|>")
    settings = Hps3(
        model=str(qwen2), weights=str(tmp_path / "HPSv3.safetensors"), prompt=str(tmp_path / "question.txt"), frames=2
    )
    (row,) = rewards.hps3(given(world, hps3=settings))
    store, sample = world
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    values = []
    for frame in video.read_frames(store.resolve(sample.path))[[3, 5]]:
        states = expected(
            qwen2, state, "a cat", [rewards.PICTURE_TOKEN], frame, "of {prompt}: <|Reward|>", video_of=False
        )
        values.append(float(layers(states)[0, 0].detach()))
    assert row.value == pytest.approx(np.mean(values), abs=1e-3)


def test_video_score2_says_what_it_does_not_say(world, tmp_path):
    """A random model writes no score: each is missing with its reason; a question without a place is refused."""
    from regdpo.evaluate import video_score

    MAKE("qwen2_5_vl", tmp_path / "model")
    (tmp_path / "question.txt").write_text("What of {prompt}?")
    settings = VideoScore2(model=str(tmp_path / "model"), prompt=str(tmp_path / "question.txt"), max_new_tokens=4)
    rows = video_score.measure(given(world, video_score2=settings))
    assert [(row.metric, row.value) for row in rows] == [(key, None) for key in video_score.NAMES]
    assert rows[0].missing == "the answer has no visual quality"
    (tmp_path / "question.txt").write_text("What?")
    with pytest.raises(UserError, match=r"has no \{prompt\}, where the caption belongs"):
        video_score.measure(given(world, video_score2=settings))
