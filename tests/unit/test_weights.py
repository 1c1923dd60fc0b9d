"""Weights of pairs."""

import math
import re

import pytest
from torch import tensor

from regdpo.core.errors import UserError
from regdpo.objectives.weights import normalised, weighted


def test_weights_have_mean_1_and_multiply():
    weights = normalised({"a": 1.0, "b": 3.0, "c": 0.0})
    assert weights == pytest.approx({"a": 0.75, "b": 2.25, "c": 0.0})
    assert normalised({"a": 1.0, "b": 3.0}, scale=False) == {"a": 1.0, "b": 3.0}
    assert normalised({"a": 1e308, "b": 1e308}) == {"a": 1.0, "b": 1.0}
    loss, weight = tensor([2.0, 4.0], requires_grad=True), tensor([0.5, 1.5], requires_grad=True)
    weighted(loss, weight).sum().backward()
    assert weighted(loss, weight).tolist() == [1.0, 6.0]
    assert loss.grad.tolist() == [0.5, 1.5]
    assert weight.grad is None


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"good": 1.0, "minus": -1.0}, "minus"),
        ({"good": 1.0, "nan": math.nan, "far": math.inf}, "nan (nan), far (inf)"),
        ({"a": 0.0, "b": 0.0}, "a, b"),
        ({f"pair{n}": -1.0 for n in range(9)}, "and 4 more"),
        ({}, "no pairs"),
    ],
)
def test_bad_weights_are_named(weights, named):
    with pytest.raises(UserError, match=re.escape(named)) as error:
        normalised(weights)
    with pytest.raises(UserError):
        normalised(weights, scale=False)
    assert "good" not in str(error.value)
    assert "\n" not in str(error.value)
