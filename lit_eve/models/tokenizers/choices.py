"""Names that mean one of a few things, as Python programs give them."""

from __future__ import annotations

from typing import Any, get_args


def check_choice(what: str, given: str, choices: Any) -> None:
    """Stop on a name that a `Literal` does not have: it would silently mean one of the others.

    Raises:
        ValueError: naming all there are.
    """
    known = get_args(choices)
    if given not in known:
        raise ValueError(f"{what} {given!r} is unknown. Choose one of {', '.join(known)}.")
