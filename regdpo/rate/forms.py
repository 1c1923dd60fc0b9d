"""The two forms of the page and their questions, each declared once.

Two videos: VQ and PF as Reg-DPO's GSB has them (arXiv 2511.01450). Single clips: the three questions of MUG-V's human
evaluation (arXiv 2510.17519): whether the clip is discernibly generated, whether the product keeps its colour, material
and texture, whether it looks professional.
"""

from dataclasses import dataclass

SIDES = (("left", "Left"), ("same", "Same"), ("right", "Right"))
YES_NO = (("yes", "Yes"), ("no", "No"))


@dataclass(frozen=True)
class Question:
    """One question; its answers are those of the form."""

    axis: str
    title: str
    text: str


@dataclass(frozen=True)
class Form:
    """What is asked of each thing that is shown."""

    title: str
    videos: int
    answers: tuple[tuple[str, str], ...]
    """Value and label, in the order of the keys 1, 2, 3."""
    questions: tuple[Question, ...]


FORMS: dict[str, Form] = {
    "pair": Form(
        "Two videos side by side",
        2,
        SIDES,
        (
            Question("VQ", "Video quality", "Which one looks better: sharp, smooth, free of errors, moving naturally?"),
            Question("PF", "Prompt following", "Which one shows better what was asked for?"),
        ),
    ),
    "clip": Form(
        "Single videos",
        1,
        YES_NO,
        (
            Question("generated", "Looks generated?", "Can you tell that a computer made it?"),
            Question("product", "Product kept?", "Does what it shows keep its colour, material and texture?"),
            Question("professional", "Professional?", "Could it be the work of a professional?"),
        ),
    ),
}
"""Name of a form, as in ``AnswerRow.form`` -> declaration."""
