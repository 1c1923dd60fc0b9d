"""Stored weights, read slice by slice: one file or many, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from regdpo.core.errors import UserError
from regdpo.models.weights import FILE, INDEX, StoredWeights

TENSORS = {"a.weight": torch.arange(12.0).view(4, 3), "a.bias": torch.ones(3), "b": torch.tensor(7.0)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}


@pytest.fixture(params=["one file", "two files"])
def folder(request, tmp_path):
    if request.param == "one file":
        save_file(TENSORS, tmp_path / FILE)
    else:
        where = {"a.weight": "1.safetensors", "a.bias": "2.safetensors", "b": "2.safetensors"}
        for file in sorted(set(where.values())):
            save_file({name: TENSORS[name] for name in where if where[name] == file}, tmp_path / file)
        (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    save_file(
        {name: tensor + 1 for name, tensor in TENSORS.items()}, tmp_path / "diffusion_pytorch_model.fp16.safetensors"
    )
    return tmp_path


def test_parts_are_those_of_the_whole(folder):
    """And a variant of the same tensors that lies beside them is none of them."""
    weights = StoredWeights(folder)
    weights.check(SHAPES)
    wanted = {"a.weight": (slice(1, 3), slice(0, 2)), "a.bias": (slice(3, 3),), "b": ()}
    found = dict(weights.read(wanted))
    assert found.keys() == wanted.keys()
    for name, where in wanted.items():
        assert torch.equal(found[name], TENSORS[name][where])
    assert list(dict(weights.read({"b": ()}))) == ["b"]


def test_other_tensors_than_the_architectures_are_told(folder):
    weights = StoredWeights(folder)
    for shapes, message in (
        (SHAPES | {"c": (1,), "d": (1,)}, r"lacks c and 1 more; it is not the checkpoint of its config.json"),
        ({"a.weight": (4, 3), "b": ()}, r"holds, unasked, a.bias; it is not"),
        (SHAPES | {"a.weight": (3, 4)}, r"a.weight is \(4, 3\), its config.json makes it \(3, 4\)"),
    ):
        with pytest.raises(UserError, match=message):
            weights.check(shapes)
    StoredWeights(folder, ("bias$",)).check({"a.weight": (4, 3), "b": ()})


def test_weights_that_cannot_be_read_are_told(folder):
    victim = sorted(folder.glob("*.safetensors"))[-1 if (folder / FILE).exists() else 0]
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{victim.name}: cannot be read"):
        StoredWeights(folder)
    for text in (
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"b": "../b.safetensors"}}',
        '{"weight_map": {"b": 1}}',
    ):
        (folder / INDEX).write_text(text)
        with pytest.raises(UserError, match=rf"{INDEX}: is not an index of weights"):
            StoredWeights(folder)
