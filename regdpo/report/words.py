"""What the page's own words mean; docs/reference/glossary.md has more of them."""

from regdpo.objectives.registry import OBJECTIVES
from regdpo.report.gather import Inputs

OBJECTIVE = {
    "sft": (
        "SFT",
        "Supervised fine-tuning: the model learns from the real clips (winners) alone. It is the yardstick, since it "
        "needs no losers.",
    ),
    "dpo": (
        "DPO",
        "Direct preference optimisation: of a pair the model learns to fit the winner more, and the loser less, than "
        "the frozen base does. Only the difference counts, so both may become worse.",
    ),
    "reg_dpo": ("Reg-DPO", "DPO and SFT together, so that the winner's own error cannot drift upwards."),
}
"""Objective -> how the page calls it, and what it is; the others have their line of ``OBJECTIVES``."""

TERMS = {
    "beta": ("beta (β)", "How steeply DPO answers to the difference between winner and loser."),
    "r": ("r", "Weight of the SFT term: a constant, or DGR."),
    "sft": (
        "SFT term",
        "The winner's own error, which any preference objective may add with weight r, as Reg-DPO does.",
    ),
    "reference point": (
        "reference point",
        "How much better than the reference the model fits on average; KTO asks of a good video more than that, and of "
        "a bad one less.",
    ),
    "dgr": (
        "DGR",
        "DPO gradient ratio: how hard DPO still pulls at a pair. It falls to 0 once a pair is told apart; as r it lets "
        "the SFT term fall with it.",
    ),
}

ALWAYS = {
    "arm": "One objective with its settings; all arms are trained on the same pairs and seeds.",
    "base": "The model before training; the losers come from it.",
    "winner, loser": "The real clip of a pair, and what the base made of its caption{first}.",
    "held out": "Not trained on.",
    "primary measure": "What the verdicts are about; it was declared in the configuration (scores.primary).",
    "spectral distance": "How far the strength of fine and coarse, of still and moving detail is from the real clip's; "
    "blur and stillness count as much as noise and flicker, and where things are does not count.",
    "held-out error": "How wrong the model is about the noise in held-out clips (mean squared error).",
    "interval": "Where the mean may lie, as far as the footage and the trainings tell that there are.",
}

CONTINUATION = {
    "PSNR, SSIM": "How near a sample is to what was really filmed after its first frame: pixel by pixel, and by local "
    "structure."
}

AFTER = {
    "win gap, lose gap": "Error of the model less that of the frozen base, on winners and on losers.",
    "drift": "The model tells winner from loser, yet has become worse on the winners.",
}


def used(inputs: Inputs) -> dict[str, str]:
    """Word -> meaning: those that this page uses, objectives first."""
    arms = [link.step for link in inputs.config.train.links.values()]
    image = inputs.config.base.task == "i2v"
    found = {}
    for objective in dict.fromkeys(arm.objective for arm in arms):
        name, meaning = OBJECTIVE.get(objective, (objective, f"{OBJECTIVES[objective].meaning}."))
        found[name] = meaning
    if any(arm.beta is not None for arm in arms):
        found |= dict([TERMS["beta"], TERMS["dgr"]])
    if any("reference_point" in OBJECTIVES[arm.objective].needs for arm in arms if arm.objective):
        found |= dict([TERMS["reference point"]])
    if any(arm.sft is not None for arm in arms):
        found |= dict([TERMS["sft"], TERMS["r"]])
    if any(arm.r is not None for arm in arms):
        found |= dict([TERMS["r"]])
    found |= {word: text.format(first=" and first frame" if image else "") for word, text in ALWAYS.items()}
    return found | (CONTINUATION if image else {}) | AFTER
