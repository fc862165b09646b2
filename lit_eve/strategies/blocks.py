"""The repeated blocks of a model: what is sharded, compiled and recomputed as one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of every Transformers model inside `model`, outermost first.

    Those models state themselves which of their classes must stay together
    (`_no_split_modules`); everything else is small and needs no blocks.
    """
    for module in model.modules():
        names = getattr(module, "_no_split_modules", None)
        if names:
            yield from (inner for inner in module.modules() if type(inner).__name__ in names)


def unique_blocks(model: nn.Module) -> list[nn.Module]:
    """`blocks`, each once: a causal model and the decoder inside it both name the same ones."""
    return list({id(block): block for block in blocks(model)}.values())


def compile_blocks(model: nn.Module, mode: str | None = None) -> int:
    """Compile every block in place, which keeps all names; the first step gets slower.

    One graph serves all blocks of a kind, so compiling takes seconds, not minutes. Comes before
    sharding.

    Returns:
        How many blocks were compiled.

    Raises:
        ValueError: if the model has no blocks.
    """
    found = unique_blocks(model)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no repeated blocks to compile: only models of "
            "Transformers state them. Leave compile out."
        )
    for block in found:
        block.compile(mode=mode)
    return len(found)
