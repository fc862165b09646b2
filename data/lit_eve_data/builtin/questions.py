"""What is said about a scene: captions, and questions whose answers follow from how it was made.

Every question has exactly one right answer: one digit is named only where it stands once, colours
are asked of a digit that occurs once, left and right only inside a line, above and below only
between lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from lit_eve_data.builtin.scenes import Box, Scene, SceneObject
from lit_eve_data.disk.records import IMAGE, Turn

Question = tuple[str, str]


def write(scene: Scene, kinds: Mapping[str, float], random: Random) -> tuple[str, list[Turn]]:
    """Choose a kind by weight among those the scene allows, and write its two turns.

    Returns:
        The kind and the turns: the user's, with the image placeholder, and the assistant's.

    Raises:
        ValueError: if the scene allows none of the kinds.
    """
    left = {kind: weight for kind, weight in kinds.items() if weight > 0}
    while left:
        (kind,) = random.choices(list(left), weights=list(left.values()))
        question = WRITERS[kind](scene.objects, random)
        if question is not None:
            return kind, turns(*question)
        del left[kind]
    raise ValueError(
        f"none of the kinds {sorted(kinds)} can be asked of every scene: one without a second or a "
        "unique digit allows read, count, sum and captions only. Add one of those to kinds."
    )


def turns(prompt: str, answer: str) -> list[Turn]:
    """One exchange about one image."""
    return [
        {"role": "user", "content": f"{IMAGE}\n{prompt}"},
        {"role": "assistant", "content": answer},
    ]


def facts(scene: Scene) -> dict[str, Any]:
    """What an evaluation needs to know of a scene, in reading order, as plain JSON."""
    return {
        "digits": [item.digit for item in scene.objects],
        "colours": [item.ink for item in scene.objects],
        "boxes": [[round(side, 4) for side in item.box] for item in scene.objects],
        "lines": [item.line for item in scene.objects],
    }


def box_text(box: Box) -> str:
    """A box as text: x0, y0, x1, y1 as shares of width and height, three decimals."""
    return "[" + ", ".join(f"{side:.3f}" for side in box) + "]"


def _read(objects: tuple[SceneObject, ...], random: Random) -> Question:
    prompt = random.choice(
        (
            "Read the digits.",
            "Which digits are written here?",
            "What does it say?",
            "Read all digits in order.",
        )
    )
    return prompt, " ".join(str(item.digit) for item in objects)


def _count(objects: tuple[SceneObject, ...], random: Random) -> Question:
    prompt = random.choice(
        (
            "How many digits are there?",
            "Count the digits.",
            "How many digits do you see?",
        )
    )
    return prompt, str(len(objects))


def _sum(objects: tuple[SceneObject, ...], random: Random) -> Question:
    prompt = random.choice(
        (
            "What is the sum of the digits?",
            "Add up the digits.",
            "What do the digits add up to?",
        )
    )
    return prompt, str(sum(item.digit for item in objects))


def _colour(objects: tuple[SceneObject, ...], random: Random) -> Question | None:
    unique = _unique(objects)
    if not unique:
        return None
    item = random.choice(unique)
    prompt = random.choice(
        (
            "What colour is the {}?",
            "Which colour does the {} have?",
            "Name the colour of the {}.",
        )
    )
    return prompt.format(item.digit), item.ink


def _relation(objects: tuple[SceneObject, ...], random: Random) -> Question | None:
    unique = _unique(objects)
    if len(unique) < 2:
        return None
    one, other = random.sample(unique, 2)
    first = objects.index(one) < objects.index(other)
    if one.line == other.line:
        pair, answer = ("left of", "right of"), "left" if first else "right"
    else:
        pair, answer = ("above", "below"), "above" if first else "below"
    prompt = random.choice(
        (
            "Is the {one} {a} or {b} the {other}?",
            "Where is the {one}: {a} or {b} the {other}?",
        )
    )
    return prompt.format(one=one.digit, other=other.digit, a=pair[0], b=pair[1]), answer


def _locate(objects: tuple[SceneObject, ...], random: Random) -> Question | None:
    unique = _unique(objects)
    if not unique:
        return None
    item = random.choice(unique)
    prompt = random.choice(
        (
            "Where is the {}?",
            "Give the box of the {}.",
            "Locate the {}.",
        )
    )
    return prompt.format(item.digit), box_text(item.box)


def _point(objects: tuple[SceneObject, ...], random: Random) -> Question:
    item = random.choice(objects)
    prompt = random.choice(
        (
            "Which digit is at {}?",
            "What is written in {}?",
            "Read the digit in the box {}.",
        )
    )
    return prompt.format(box_text(item.box)), str(item.digit)


def _caption_digits(objects: tuple[SceneObject, ...], random: Random) -> Question:
    prompt = random.choice(("Describe the image.", "Write a caption.", "What is in the image?"))
    return prompt, "the digits " + _listed([str(item.digit) for item in objects])


def _caption_colours(objects: tuple[SceneObject, ...], random: Random) -> Question:
    prompt = random.choice(
        (
            "Describe the digits and their colours.",
            "Write a caption with colours.",
            "What is in the image, and in which colours?",
        )
    )
    return prompt, _listed([f"{_article(item.ink)} {item.ink} {item.digit}" for item in objects])


def _caption_layout(objects: tuple[SceneObject, ...], random: Random) -> Question:
    prompt = random.choice(
        (
            "Describe the layout.",
            "Write a caption line by line.",
            "What stands in which line?",
        )
    )
    lines: dict[int, list[str]] = {}
    for item in objects:
        lines.setdefault(item.line, []).append(str(item.digit))
    return prompt, "; ".join(f"line {n + 1}: {' '.join(digits)}" for n, digits in lines.items())


def _unique(objects: tuple[SceneObject, ...]) -> list[SceneObject]:
    """The digits that stand once: only they can be called "the 3"."""
    times = Counter(item.digit for item in objects)
    return [item for item in objects if times[item.digit] == 1]


def _listed(words: list[str]) -> str:
    """Words as a list in prose: `1, 2 and 3`."""
    if len(words) == 1:
        return words[0]
    return ", ".join(words[:-1]) + " and " + words[-1]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


WRITERS: dict[str, Callable[[tuple[SceneObject, ...], Random], Question | None]] = {
    "caption/digits": _caption_digits,
    "caption/colours": _caption_colours,
    "caption/layout": _caption_layout,
    "question/read": _read,
    "question/count": _count,
    "question/colour": _colour,
    "question/relation": _relation,
    "question/sum": _sum,
    "question/locate": _locate,
    "question/point": _point,
}
