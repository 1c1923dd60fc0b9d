"""Captions that a text encoder does not read to their end."""

from collections.abc import Mapping

from regdpo.core.errors import UserError
from regdpo.models.family import Family

TOLD = 20
"""Most captions that a refusal names."""


def too_long(family: Family, captions: Mapping[str, str]) -> dict[str, int]:
    """Id -> tokens, of those captions that take more than ``base.text_length``."""
    counts = dict(zip(captions, family.text_tokens(list(captions.values())), strict=True))
    return {name: tokens for name, tokens in counts.items() if tokens > family.ref.text_length}


def told(found: Mapping[str, int], all_: int, family: Family) -> str:
    """A line about captions that are cut; empty if none is."""
    if not found:
        return ""
    name, tokens = max(found.items(), key=lambda it: (it[1], it[0]))
    return (
        f"note: {len(found)} of {all_} captions take more than the {family.ref.text_length} tokens that the text "
        f"encoder reads, and it does not see their ends (such as {name}: {tokens} tokens): write shorter ones, or see "
        "base.text_length, captions.max_new_tokens and captions.too_long"
    )


def refuse(found: Mapping[str, int], all_: int, family: Family) -> None:
    """End a stage that must not go on with cut captions.

    Raises:
        UserError: there are some.
    """
    if found:
        named = ", ".join(f"{name}: {tokens} tokens" for name, tokens in sorted(found.items())[:TOLD])
        more = f", and {len(found) - TOLD} more" if len(found) > TOLD else ""
        raise UserError(
            f"captions: {len(found)} of {all_} take more than the {family.ref.text_length} tokens that the text "
            f"encoder reads (base.text_length): {named}{more}; write shorter ones (captions.prompt, "
            "captions.max_new_tokens), or set captions.too_long to cut or leave_out"
        )
