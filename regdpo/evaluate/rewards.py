"""Reward models that are a Qwen2-VL with a head: VideoReward (arXiv 2501.13918) and HPS v3 (arXiv 2508.03789).

The question ends with tokens of the model's own, and the head reads a number at each of them. Three things are as the
published models were trained, and not as Qwen2-VL itself has them:

- Positions count the tokens one by one: the forward pass of both repositories gives none, and the transformers of
  that time then took those of plain text.
- The head is one matrix (VideoReward: 3 outputs, of which each token reads its own), or three layers with ReLU between
  (HPS v3: mean and spread of one score, of which the mean is the score).
- VideoReward's numbers are normalised by means and deviations over its authors' data, where ``model_config.json``
  beside the weights has them (``inference_config``).

Names of tensors are brought from the transformers of that time to today's. Adapters among the weights are merged.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from regdpo.config.evaluation import Reward
from regdpo.config.stage_inputs import JudgeStage
from regdpo.core.errors import UserError, first_line
from regdpo.core.progress import track
from regdpo.core.rows import ScoreRow
from regdpo.data.captioners.vision import load as load_vision
from regdpo.data.judges import some
from regdpo.data.video import read_stored
from regdpo.evaluate.measures import Given
from regdpo.evaluate.proxies import row
from regdpo.evaluate.video_score import PLACE, question_of, seen
from regdpo.runtime.hub import BROKEN

AXES = ("VQ", "MQ", "TA")
"""VideoReward's numbers, in the order of its head."""
VIDEO_TOKENS = tuple(f"<|{axis}_reward|>" for axis in AXES)
PICTURE_TOKEN = "<|Reward|>"  # noqa: S105 - no secret
HEAD = "rm_head"
RENAMED = (("visual.", "model.visual."), ("model.", "model.language_model."))
"""How names of Qwen2-VL's tensors began in transformers before 4.52, and how they begin."""


def video_reward(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    stage: JudgeStage = given.stage
    settings = stage.scores.video_reward
    assert settings is not None
    judge = Judge("scores.video_reward", settings, VIDEO_TOKENS, len(AXES))
    norms = normalisation(Path(settings.weights))
    rows = []
    for sample in track(given.samples, "VideoReward", len(given.samples)):
        video, pair = read_stored(given.store, sample.path, sample.sha256), given.pairs[sample.clip_id]
        found = judge(seen(judge.processor, video, pair.fps, settings.fps, judge.question(pair.caption)))
        for number, axis in enumerate(AXES):
            mean, deviation = norms.get(axis, (0.0, 1.0))
            value = (float(found[number, number]) - mean) / deviation
            rows.append(row(sample.model, f"video_reward_{axis.lower()}", sample.clip_id, sample.seed, value))
    return rows


def hps3(given: Given) -> list[ScoreRow]:
    """As declared in ``measures``."""
    stage: JudgeStage = given.stage
    settings = stage.scores.hps3
    assert settings is not None
    judge = Judge("scores.hps3", settings, (PICTURE_TOKEN,), 2)
    rows = []
    for sample in track(given.samples, "HPS v3", len(given.samples)):
        frames = some(read_stored(given.store, sample.path, sample.sha256), settings.frames)
        text = judge.question(given.pairs[sample.clip_id].caption)
        values = [float(judge(_picture(judge.processor, frame, text))[0, 0]) for frame in frames]
        rows.append(row(sample.model, "hps3", sample.clip_id, sample.seed, float(np.mean(values))))
    return rows


class Judge:
    """Processor, model and head.

    Args:
        key: of the configuration. settings: its section. tokens: at which the head reads. outputs: of the head.

    Raises:
        UserError: something cannot be loaded, does not fit, or the question lacks a token.
    """

    def __init__(self, key: str, settings: Reward, tokens: tuple[str, ...], outputs: int):
        self._question = question_of(f"{key}.prompt", settings.prompt)
        if lacking := [token for token in tokens if self._question.count(token) != 1]:
            raise UserError(f"{key}.prompt: {settings.prompt} has to hold {lacking[0]} once, where its number is read")
        self.processor, self.model = load_vision(f"{key}.model", settings.model, settings.revision, ("qwen2_vl",))
        for part in (self.processor.image_processor, self.processor.video_processor):
            part.size = replace(part.size, longest_edge=settings.max_pixels)
        tokenizer = self.processor.tokenizer
        tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
        self._ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(tokens)))
        state = merged(read_tensors(f"{key}.weights", settings.weights), Path(settings.weights))
        self._head = head_of(f"{key}.weights", state, self.model.config.text_config.hidden_size, outputs)
        _fill(f"{key}.weights", self.model, state)

    def question(self, caption: str) -> str:
        """The text that is asked. A caption has no tokens of the model's."""
        for token in self.processor.tokenizer.all_special_tokens:
            caption = caption.replace(token, " ")
        return self._question.replace(PLACE, caption)

    @torch.inference_mode()
    def __call__(self, inputs: Any) -> Tensor:
        """What the head says at each token, float32 (tokens, outputs)."""
        inputs = inputs.to(self.model.device)
        length = inputs["input_ids"].shape[1]
        positions = torch.arange(length, device=self.model.device).expand(3, 1, length)
        states = self.model.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state[0]
        there = (inputs["input_ids"][0][None] == self._ids.to(states.device)[:, None]).int().argmax(dim=1)
        values = states[there].float()
        for number, (weight, bias) in enumerate(self._head):
            values = torch.nn.functional.linear(values.relu() if number else values, weight.to(values), bias)
        return values


def read_tensors(key: str, path: str) -> dict[str, Tensor]:
    """Of a safetensors file, or one of torch.

    Raises:
        UserError: it cannot be read.
    """
    try:
        found: Any = load_file(path) if path.endswith(".safetensors") else torch.load(path, "cpu", weights_only=True)
    except (*BROKEN, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{key}: {path} cannot be read ({first_line(error)})") from None
    tensors = found.get("state_dict", found) if isinstance(found, dict) else {}
    return {name: it for name, it in tensors.items() if isinstance(it, Tensor)}


def merged(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights by today's names, adapters of peft added to what they adapt: W + alpha / rank B A.

    Raises:
        UserError: there are adapters, and ``model_config.json`` beside them does not say their alpha.
    """
    plain: dict[str, Tensor] = {}
    low: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _without_peft(state):
        layer, _, half = name.partition(".lora_")
        if half:
            low.setdefault(f"{layer}.weight", {})[half[0]] = tensor
        else:
            plain[name] = tensor
    if low:
        told = _config(path).get("peft_lora_config", {})
        alpha, root = told.get("lora_alpha"), told.get("use_rslora", False)
        if not isinstance(alpha, int | float):
            raise UserError(f"{path}: holds adapters, and {path.parent / 'model_config.json'} does not say their alpha")
        for name, halves in low.items():
            rank = len(halves["A"])
            plain[name] = plain[name] + halves["B"] @ halves["A"] * (alpha / (rank**0.5 if root else rank))
    return {_today(name): tensor for name, tensor in plain.items()}


def _without_peft(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors without what peft puts into their names. Of a module that was trained whole the copy counts."""
    whole = {name.replace(".modules_to_save.default", "") for name in state if ".modules_to_save." in name}
    for name, tensor in state.items():
        if ".original_module." in name and name.replace(".original_module", "") in whole:
            continue
        name = name.removeprefix("base_model.model.")
        for part in (".base_layer", ".modules_to_save.default", ".default"):
            name = name.replace(part, "")
        yield name, tensor


def _today(name: str) -> str:
    for before, after in RENAMED:
        if name.startswith(before) and not name.startswith(("model.visual.", "model.language_model.")):
            return after + name.removeprefix(before)
    return name


def head_of(key: str, state: Mapping[str, Tensor], width: int, outputs: int) -> list[tuple[Tensor, Tensor | None]]:
    """Weights and biases of the head's layers, in order.

    Raises:
        UserError: there is none from the model's states to so many numbers.
    """
    names = [name for name in state if name.startswith(f"{HEAD}.") and name.endswith("weight")]
    names.sort(key=lambda name: [int(part) for part in name.split(".") if part.isdigit()])
    layers = [(state[name].float(), state.get(name.removesuffix("weight") + "bias")) for name in names]
    widths = [width, *(len(weight) for weight, _ in layers)]
    fits = all(weight.shape[1] == before for (weight, _), before in zip(layers, widths, strict=False))
    if not layers or not fits or widths[-1] != outputs:
        shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in names) or f"no {HEAD}"
        raise UserError(f"{key}: no head from {width} numbers to {outputs} ({shapes})")
    return [(weight, None if bias is None else bias.float()) for weight, bias in layers]


def _fill(key: str, model: Any, state: Mapping[str, Tensor]) -> None:
    """Give a model its weights, its embedding as many rows as they have.

    Raises:
        UserError: they are not this model's.
    """
    words = state.get("model.language_model.embed_tokens.weight")
    if words is not None and len(words) != len(model.get_input_embeddings().weight):
        model.resize_token_embeddings(len(words), mean_resizing=False)
    given = {name: tensor for name, tensor in state.items() if not name.startswith(f"{HEAD}.")}
    try:
        told = model.load_state_dict(given, strict=False)
    except RuntimeError as error:
        raise UserError(f"{key}: the weights are not this model's ({first_line(error)})") from None
    tied = {"lm_head.weight"}
    if wrong := sorted({*told.missing_keys} - tied | {*told.unexpected_keys}):
        raise UserError(f"{key}: the weights are not this model's: {len(wrong)} tensors differ, such as {wrong[0]}")


def normalisation(weights: Path) -> dict[str, tuple[float, float]]:
    """Axis -> mean and deviation that its numbers are normalised by; empty where none is said."""
    told = _config(weights).get("inference_config") or {}
    return {axis: (told[f"{axis}_mean"], told[f"{axis}_std"]) for axis in AXES if f"{axis}_std" in told}


def _config(weights: Path) -> dict[str, Any]:
    """``model_config.json`` beside the weights, or in the folder above, where VideoReward's is."""
    for folder in (weights.parent, weights.parent.parent):
        try:
            found = json.loads((folder / "model_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _picture(processor: Any, frame: np.ndarray, text: str) -> Any:
    question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    return processor(text=[prompt], images=[frame], return_tensors="pt")
