"""What makes a caption unusable, whoever wrote it."""

import re
import unicodedata

from regdpo.config.schema import Captions
from regdpo.core.rows import CaptionRow
from regdpo.data.sidecars import is_blank, unprintable

REFUSALS = re.compile(
    r"\W*((i'?m |i am |we'?re |we are )?(so |very )?sorry\b|unfortunately,? i\b|as an ai\b"
    r"|(很|非常)?抱歉|对不起|我(无法|不能)"
    r"|i('m| am) (not able|unable) to\b"
    r"|i (cannot|can't|can not|do not|don't) "
    r"(describe|help|assist|provide|view|see|watch|access|process|analy[sz]e|generate|comply|fulfill?|do that)\b)",
    re.IGNORECASE,
)
"""How a model begins that does not want to, or says that it cannot see the video."""
THINKING = re.compile(r"</?think(ing)?>", re.IGNORECASE)
MOSTLY = 0.8
"""Share of letters that have to be in the script that was asked for."""


def problem(row: CaptionRow, settings: Captions) -> str:
    """Why a caption cannot be used, and what to do; empty if it can. The word before the colon is its kind."""
    text = row.caption
    if is_blank(text):
        return "empty: it says nothing; change captions.prompt"
    if row.cut:
        return f"cut off: it ran into captions.max_new_tokens ({settings.max_new_tokens}); raise it, or ask for less"
    if found := unprintable(text) or ("\ufffd" if "\ufffd" in text else ""):
        return f"characters: it holds U+{ord(found):04X}, which is no text"
    if THINKING.search(text):
        return "reasoning: it holds the model's reasoning; switch that off where the model is served"
    if REFUSALS.match(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        return f"refusal: it begins {text[:40]!r}; change captions.prompt, or name the video in videos.exclude"
    if settings.script and (share := written_in(text, settings.script)) < MOSTLY:
        return f"language: {share:.0%} of its letters are {settings.script} (captions.script); ask for it in the prompt"
    return ""


def written_in(text: str, script: str) -> float:
    """Share of the letters whose name in Unicode begins with a script's, such as ``LATIN``; of no letters 0."""
    letters = [char for char in text if unicodedata.category(char)[0] == "L"]
    return sum(unicodedata.name(char, "").startswith(script) for char in letters) / max(1, len(letters))
