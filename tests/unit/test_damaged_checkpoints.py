"""Checkpoints that are damaged, or ask for the absurd: one line each, before anything large is built."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_pipelines import CASES, save

from regdpo.config import schema
from regdpo.config.schema import Base
from regdpo.core.errors import UserError
from regdpo.core.store import Store
from regdpo.models.checkpoint_json import KNOWN, MOST_BYTES, check_all, read_json
from regdpo.models.family import Family, open_family
from regdpo.models.spec import ModelRef
from regdpo.plan import architecture

CASE = CASES["wan-t2v"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "holds a list in the place of a JSON object"),
        ("null", "holds a NoneType"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"num_layers": 10000000}', "num_layers is 10000000; at most 1000 is taken"),
        ('{"text_config": {"num_hidden_layers": 1001}}', "num_hidden_layers is 1001"),
        ('{"layers_per_block": [2, 5000]}', "layers_per_block is 5000"),
        ('{"rope_max_seq_len": 1073741824}', "rope_max_seq_len is 1073741824; at most 1048576"),
        ('{"vocab_size": 99999999999}', "vocab_size is 99999999999"),
        ('{"eps": NaN}', "eps is nan, which is no number"),
        ('{"a": "' + "x" * MOST_BYTES + '"}', "larger than 1 MiB"),
    ],
)
def test_a_configuration_is_an_object_of_sane_numbers(tmp_path, text, said):
    path = tmp_path / "text_encoder/config.json"
    path.parent.mkdir()
    path.write_text(text)
    for check in (lambda: read_json(path), lambda: check_all(tmp_path)):
        with pytest.raises(UserError) as told:
            check()
        assert str(told.value).startswith(f"{path}: ")
        assert said in str(told.value)
        assert "\n" not in str(told.value)


def test_the_known_architectures_are_sane():
    for path in KNOWN.glob("*.json"):
        read_json(path)


def test_ten_million_layers_reach_no_plan(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(
        '{"_class_name": "WanTransformer3DModel", "num_layers": 10000000}'
    )
    with pytest.raises(UserError, match="num_layers is 10000000"):
        architecture.find(Base(model=str(tmp_path)))
    with pytest.raises(UserError, match=r"base.pretrain.transformer.layers: .*less than or equal to 1000"):
        schema.check({"base": {"pretrain": {"transformer": {"layers": 10_000_000}}}})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("patch_size", None, r"is null; .* wants numbers, such as \(1"),
        ("patch_size", [0, 0, 0], r"is \[0, 0, 0\]; .* wants numbers"),
        ("num_attention_heads", "four", 'is "four"; .* wants a whole number above 0, such as 40'),
        ("num_layers", 1e7, "is 10000000.0; .* wants a whole number above 0"),
        ("num_layers", -3, "is -3; .* wants a whole number above 0"),
        ("eps", [1], r"is \[1\]; .* wants a number, such as 1e-06"),
    ],
)
def test_a_value_of_another_kind_reaches_no_plan(tmp_path, name, value, wanted):
    (tmp_path / "transformer").mkdir()
    values = {"_class_name": "WanTransformer3DModel", name: value}
    (tmp_path / "transformer/config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"transformer/config\.json: {name} {wanted}"):
        architecture.find(Base(model=str(tmp_path)))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "good"
    save(CASE, folder)
    return folder


def _loaded(family: Family) -> None:
    family.check()
    family.check_geometry(5, 32, 32)
    family.load_transformer()
    family.encode_text(["a cat"])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", "[]"),
        ("text_encoder/model.safetensors", "no tensors at all"),
        ("text_encoder/config.json", "{}"),
        ("tokenizer/tokenizer.json", "{}"),
        ("transformer/diffusion_pytorch_model.safetensors", ""),
        ("transformer/config.json", {"num_layers": 3}),
        ("transformer/config.json", {"num_attention_heads": "x"}),
        ("transformer/config.json", {"patch_size": None}),
        ("tokenizer/tokenizer_config.json", {"pad_token": None}),
    ],
)
def test_a_damaged_file_is_one_line(good, tmp_path, file, content):
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    path = folder / file
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    ref = ModelRef(
        family=CASE.family, task=CASE.task, where="folder", path=str(folder), text_length=CASE.text_length, digest=""
    )
    with pytest.raises(UserError) as told:
        _loaded(open_family(ref, Store(tmp_path), torch.device("cpu")))
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)
