from __future__ import annotations

import pytest

from lit_eve_callbacks.parts import holds, missing_part, most_specific


@pytest.mark.parametrize(
    ("part", "name", "belongs"),
    [
        ("mind", "mind.head.weight", True),
        ("mind", "minds.weight", False),
        ("mind.head.weight", "mind.head.weight", True),
        ("mind.*.vision", "mind.layers.0.mlp.vision.up.weight", True),
        ("mind.*.vision", "mind.layers.0.mlp.text.up.weight", False),
        ("mind.*.vision", "mind.layers.0.mlp.visions.weight", False),
        ("mind.*.vision", "body.layers.0.vision.weight", False),
        ("mind.layers.*.mlp", "mind.layers.11.mlp.up.weight", True),
        ("mind.layers.*.mlp", "mind.layersX0.mlp.up.weight", False),
        ("*.head", "mind.head.weight", True),
    ],
)
def test_a_star_stands_for_names_between_dots(part: str, name: str, belongs: bool) -> None:
    assert holds(part, name) is belongs


def test_the_longest_part_that_fits_counts() -> None:
    parts = ["mind", "mind.*.vision"]
    assert most_specific("mind.0.vision.weight", parts) == "mind.*.vision"
    assert most_specific("mind.0.text.weight", parts) == "mind"
    assert most_specific("eye.weight", parts) is None


def test_a_part_that_holds_nothing_is_named_with_those_near_to_it() -> None:
    names = ["mind.head.weight", "eye.weight"]
    assert missing_part(names, ["mind.*.weight", "eye"]) is None
    missing = missing_part(names, ["eye", "mind.hed"])
    assert missing is not None
    assert missing[0] == "mind.hed"
    assert missing[1][0] == "mind.head"
