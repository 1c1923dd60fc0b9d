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

from regdpo.core.section import BelowOne, NonNegative, Positive, Section

LOSSES = "regdpo.objectives.losses"


@dataclass(frozen=True)
class Term:
    """A number, or a word, that an objective is given beside the errors."""

    kind: Any  # its type with its bounds, as pydantic reads them
    meaning: str
    needed: bool = True
    of_loss: bool = True
    """Whether the function takes it; else the trainer does."""


class SftTerm(Section):
    """Reg-DPO's regulariser: the winner's own error, beside any preference."""

    r: Literal["dgr"] | Positive = Field(
        description="Its weight: a constant, or `dgr`, the loss's own slope in the winner's error, at least 0."
    )


@dataclass(frozen=True)
class Objective:
    """What the trainer has to know of an objective."""

    function: str  # ``module:name``; it takes e_w, e_l, r_w, r_l (or e_w alone), the terms, and what ``needs`` names
    meaning: str
    terms: Mapping[str, Term] = field(default_factory=dict)
    paired: bool = True
    """Whether it has losers, and so a reference."""
    labelled: str = ""
    """``module:name`` of its loss of samples with a label of their own, which have no loser; it takes e, r, good
    (bool), the terms, and what ``needs`` names. Empty: it takes pairs alone."""
    needs: frozenset[Literal["products", "reference_point", "m", "frames"]] = frozenset()
    """``products``: ``dot`` and ``norm2``, (B,), inner products of the errors' gradients in output space; both halves
    of a pair have to be on one rank. ``reference_point``: the mean gain over the reference of the step's whole batch,
    (), at least 0. ``m``: ``m_w`` and ``m_l`` (``m`` of samples), (B,), the element mean of the policy's residual times
    the reference's, with its gradient; a reference whose errors alone are known cannot give it. ``frames``: errors are
    of each latent frame, (B, F), and ``preferred`` and ``segment``, (B, F), say which half is better there."""
    configurable: bool = True
    """Whether arms may choose it."""

    def loss(self, labelled: bool = False) -> Callable[..., Any]:
        """The function of pairs, or of labelled samples."""
        module, _, name = (self.labelled if labelled else self.function).partition(":")
        return getattr(import_module(module), name)


_BETA = Term(Positive, "slope on element-mean squared errors; dpo is softplus(beta/2 * s)")
_SFT = {"sft": Term(SftTerm, "adds the winner's own error, as reg_dpo does to dpo", needed=False, of_loss=False)}

OBJECTIVES: dict[str, Objective] = {
    "pretrain": Objective(f"{LOSSES}:sft", "what a base made here is trained with", paired=False, configurable=False),
    "sft": Objective(f"{LOSSES}:sft", "the winner's own error", paired=False),
    "dpo": Objective(f"{LOSSES}:dpo", "Diffusion-DPO", {"beta": _BETA, **_SFT}),
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
        {"beta": _BETA, "penalty": Term(NonNegative, "weight of the winner's rise inside the sigmoid"), **_SFT},
    ),
    "ipo": Objective(f"{LOSSES}:ipo", "IPO", {"beta": _BETA, **_SFT}),
    "sdpo": Objective(
        f"{LOSSES}:sdpo",
        "Diffusion-SDPO",
        {
            "beta": _BETA,
            "mu": Term(
                Annotated[float, Field(ge=0, le=1)], "share of the winner's first-order fall that the loser must leave"
            ),
            **_SFT,
        },
        needs=frozenset({"products"}),
    ),
    "kto": Objective(
        f"{LOSSES}:kto_of_pairs",
        "Diffusion-KTO",
        {
            "beta": _BETA,
            "weight_desirable": Term(NonNegative, "weight of winners and good samples; empty: 1", needed=False),
            "weight_undesirable": Term(NonNegative, "weight of losers and bad samples; empty: 1", needed=False),
            "point_decay": Term(
                BelowOne,
                "the reference point is a running mean, with this decay, over the steps before; empty: of the step's "
                "own batch",
                needed=False,
                of_loss=False,
            ),
            **_SFT,
        },
        labelled=f"{LOSSES}:kto",
        needs=frozenset({"reference_point"}),
    ),
    "ddo": Objective(
        f"{LOSSES}:ddo_of_pairs",
        "Direct Discriminative Optimization",
        {"beta": _BETA, "alpha": Term(NonNegative, "weight of generated samples"), **_SFT},
        labelled=f"{LOSSES}:ddo",
    ),
    "nft": Objective(
        f"{LOSSES}:nft_of_pairs",
        "negative-aware fine-tuning",
        {"mix": Term(Positive, "the policy's share in the implicit policies; the paper's beta"), **_SFT},
        labelled=f"{LOSSES}:nft",
        needs=frozenset({"m"}),
    ),
    "dense_dpo": Objective(
        f"{LOSSES}:dense_dpo",
        "DenseDPO: DPO by segments of time",
        {"beta": _BETA, **_SFT},
        needs=frozenset({"frames"}),
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
