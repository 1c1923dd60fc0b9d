"""Can so many ranks share a denoiser's sequence, or its blocks? Asked before the first job too, without torch."""

from regdpo.core.errors import UserError


def check_context(context: int, heads: int | None, tokens: int | None, splittable: bool, family: str) -> None:
    """Refuse a context parallelism that cannot be.

    Args:
        heads: None if nobody knows them yet. tokens: of a clip; None where they are filled up to what the ranks
            divide, or not known yet.

    Raises:
        UserError: the family's sequence cannot be split, or heads or tokens do not divide; the numbers are named.
    """
    if context == 1:
        return
    if not splittable:
        raise UserError(
            f"train.settings.parallel.context: {context}, but {family}'s sequence cannot be split "
            "(docs/reference/families.md says why); take 1"
        )
    if heads is None:
        return
    fits = [n for n in range(1, heads + 1) if heads % n == 0 and (tokens or 0) % n == 0]
    if context not in fits:
        what = f"the {heads} attention heads"
        if tokens is not None:
            what = f"both {what} and the {tokens} tokens of a clip"
        raise UserError(f"train.settings.parallel.context: {context} does not divide {what}; these do: {fits}")


def check_tensor(
    tensor: int, context: int, heads: int | None, tokens: int | None, splittable: bool, family: str
) -> None:
    """Refuse a tensor parallelism that cannot be.

    Args:
        context: ranks that split the sequence and the heads besides. heads, tokens: as of ``check_context``.

    Raises:
        UserError: the family's blocks cannot be split, or heads or tokens do not divide; the numbers are named.
    """
    if tensor == 1:
        return
    if not splittable:
        raise UserError(
            f"train.settings.parallel.tensor: {tensor}, but {family}'s blocks cannot be split "
            "(docs/reference/families.md says whose can); take 1"
        )
    if heads is None:
        return
    fits = [n for n in range(1, heads + 1) if not (heads % (n * context) or (tokens or 0) % (n * context))]
    if tensor not in fits:
        beside = f" x context {context}" if context > 1 else ""
        what = f"the {heads} attention heads"
        if tokens is not None:
            what = f"both {what} and the {tokens} tokens of a clip"
        raise UserError(
            f"train.settings.parallel.tensor: {tensor}{beside} does not divide {what}; as tensor these do: {fits}"
        )
