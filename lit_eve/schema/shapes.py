"""Which block of the schema a place in a file belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from lit_eve.schema.base import Key, Path, Strict


def keys_of(block: type[Strict]) -> dict[str, Any]:
    """The keys a block may have, as they are written, and what they may hold."""
    return {
        str(field.validation_alias or name): field.annotation
        for name, field in block.model_fields.items()
    }


def blocks_of(annotation: Any) -> Iterator[type[Strict]]:
    """All blocks that may stand where `annotation` is."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from blocks_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from blocks_of(member)
    elif isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation


def tags_of(block: type[Strict]) -> tuple[str, ...]:
    """The `type:` words of a block; none if it needs no word."""
    field = block.model_fields.get("type")
    return get_args(field.annotation) if field else ()


def items_of(annotation: Any) -> Any:
    """What a map or a list of `annotation` holds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return items_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        found = [items_of(member) for member in get_args(annotation)]
        return next((item for item in found if item is not None), None)
    if origin in (dict, Mapping, list) or getattr(origin, "__name__", "") == "Mapping":
        return get_args(annotation)[-1]
    if origin is tuple:
        return get_args(annotation)[0]
    return None


def choose(annotation: Any, value: Any) -> type[Strict] | None:
    """The block that `value` is meant to be, by its keys or its `type:` if there are several."""
    blocks = list(blocks_of(annotation))
    if len(blocks) == 1:
        return blocks[0]
    keys = value if isinstance(value, dict) else {}
    told = [block for block in blocks if block.told_by]
    if told:
        plain = next(block for block in blocks if not block.told_by)
        return next((block for block in told if block.told_by in keys), plain)
    tag = keys.get("type")
    return next((block for block in blocks if tag in tags_of(block)), None)


class Place:
    """A place in the file, found along the path of a validation error.

    Such a path holds the chosen `type:` of every block that has alternatives; the file does not.
    """

    def __init__(self, top: type[Strict], tree: Any, location: tuple[Key, ...]) -> None:
        self.annotation: Any = top
        self.value: Any = tree
        self.path: Path = ()
        self.missing: Path = ()
        """What the location goes on with where the file ends."""
        tagged = False
        for key in location:
            if str(key).startswith(("<", "[")):
                continue
            if not tagged and self._is_tag(key):
                tagged = True
                continue
            tagged = False
            self._enter(key)

    def _is_tag(self, key: Key) -> bool:
        blocks = list(blocks_of(self.annotation))
        return len(blocks) > 1 and any(key in tags_of(block) for block in blocks)

    def _enter(self, key: Key) -> None:
        block = self.block
        if block is not None:
            self.annotation = keys_of(block).get(str(key))
            if key == block.short_for and not (isinstance(self.value, dict) and key in self.value):
                return  # the value stands for a block that holds only this key
        else:
            self.annotation = items_of(self.annotation)
        inside = not self.missing and (
            (isinstance(self.value, dict) and key in self.value)
            or (isinstance(self.value, list) and isinstance(key, int) and key < len(self.value))
        )
        if inside:
            self.path = (*self.path, key)
            self.value = self.value[key]
        else:
            self.missing = (*self.missing, key)

    @property
    def block(self) -> type[Strict] | None:
        """The block of the schema that stands here, if one does."""
        return choose(self.annotation, self.value)
