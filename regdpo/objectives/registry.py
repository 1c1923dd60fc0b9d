"""The objectives, each declared once: its function, its terms, and what it must be given beside four errors.

The configuration, its documents, the trainer and the tests derive from ``OBJECTIVES``. A new objective is a function in
``losses`` and an entry here; docs/concepts/methods.md has a row for each. The entry stands apart from the function,
since a function's code counts for the trainings that use it, and a sentence for the reader must not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import Field

from regdpo.core.section import NonNegative, Positive

LOSSES = "regdpo.objectives.losses"


@dataclass(frozen=True)
class Term:
    """A number, or a word, that an objective is given beside the errors."""

    kind: Any  # its type with its bounds, as pydantic reads them
    meaning: str
    needed: bool = True


@dataclass(frozen=True)
class Objective:
    """What the trainer has to know of an objective."""

    function: str  # ``module:name``; it takes e_w, e_l, r_w, r_l (or e_w alone), the terms, and what ``needs`` names
    meaning: str
    terms: Mapping[str, Term] = field(default_factory=dict)
    paired: bool = True
    """Whether it has losers, and so a reference."""
    needs: frozenset[Literal["products", "reference_point"]] = frozenset()
    """``products``: ``dot`` and ``norm2``, (B,), inner products of the errors' gradients in output space; both halves
    of a pair have to be on one rank. ``reference_point``: the mean gain over the reference of the step's whole batch,
    (), at least 0."""
    configurable: bool = True
    """Whether arms may choose it."""

    def loss(self) -> Callable[..., Any]:
        """The function."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


_BETA = Term(Positive, "slope on element-mean squared errors; dpo is softplus(beta/2 * s)")

OBJECTIVES: dict[str, Objective] = {
    "pretrain": Objective(f"{LOSSES}:sft", "what a base made here is trained with", paired=False, configurable=False),
    "sft": Objective(f"{LOSSES}:sft", "the winner's own error", paired=False),
    "dpo": Objective(f"{LOSSES}:dpo", "Diffusion-DPO", {"beta": _BETA}),
    "reg_dpo": Objective(
        f"{LOSSES}:reg_dpo",
        "DPO regularised by the SFT loss",
        {
            "beta": _BETA,
            "r": Term(Literal["dgr"] | Positive, "weight of the SFT term; `dgr` or a constant"),
            "r_scale": Term(Positive, "with r = dgr: factor on DGR; empty: 1", needed=False),
        },
    ),
    "dpop": Objective(
        f"{LOSSES}:dpop",
        "DPO-Positive",
        {"beta": _BETA, "penalty": Term(NonNegative, "weight of the winner's rise inside the sigmoid")},
    ),
    "ipo": Objective(f"{LOSSES}:ipo", "IPO", {"beta": _BETA}),
    "sdpo": Objective(
        f"{LOSSES}:sdpo",
        "Diffusion-SDPO",
        {
            "beta": _BETA,
            "mu": Term(
                Annotated[float, Field(ge=0, le=1)], "share of the winner's first-order fall that the loser must leave"
            ),
        },
        needs=frozenset({"products"}),
    ),
    "kto": Objective(
        f"{LOSSES}:kto_of_pairs",
        "Diffusion-KTO",
        {
            "beta": _BETA,
            "weight_desirable": Term(NonNegative, "weight of winners; empty: 1", needed=False),
            "weight_undesirable": Term(NonNegative, "weight of losers; empty: 1", needed=False),
        },
        needs=frozenset({"reference_point"}),
    ),
}
"""Name in the configuration -> declaration."""


def configurable() -> tuple[str, ...]:
    """The names that an arm may have as its objective."""
    return tuple(name for name, objective in OBJECTIVES.items() if objective.configurable)


def all_terms() -> dict[str, tuple[Any, str]]:
    """Every term of any objective: its type, and what it means and for which objectives."""
    found: dict[str, tuple[Any, dict[str, list[str]]]] = {}
    for name, objective in OBJECTIVES.items():
        for term, declared in objective.terms.items():
            kind, meanings = found.setdefault(term, (declared.kind, {}))
            assert kind == declared.kind, f"{name}: {term} has other bounds than in another objective"
            meanings.setdefault(declared.meaning, []).append(name)
    return {
        term: (kind, "; ".join(f"{', '.join(names)}: {meaning}" for meaning, names in meanings.items()) + ".")
        for term, (kind, meanings) in found.items()
    }
