"""What a baseline sees through: vision encoders, trained elsewhere or here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Finding, FromList, MistakeError, Positive, Strict, written_as
from lit_eve.schema.language_models import heads_divide_width
from lit_eve.schema.problems import advise

TASKS: Mapping[str, str] = {
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<MORE_DETAILED_CAPTION>": "Describe with a paragraph what is shown in the image.",
    "<OCR>": "What is the text in the image?",
    "<OCR_WITH_REGION>": "What is the text in the image, with regions?",
    "<OD>": "Locate the objects with category name in the image.",
    "<DENSE_REGION_CAPTION>": "Locate the objects in the image, with their descriptions.",
    "<REGION_PROPOSAL>": "Locate the region proposals in the image.",
}
"""Florence-2's tasks, and the words it learnt them by."""


def _in_words(value: object) -> object:
    """The words of a task of Florence-2; other texts as they are."""
    if not isinstance(value, str) or not re.fullmatch(r"<\w+>", value):
        return value
    if value not in TASKS:
        raise MistakeError(
            f"Florence-2 has no task {value} that needs no words of its own",
            f"{advise(value, list(TASKS), 'tasks')} Any other text is read as it is.",
        )
    return TASKS[value]


Prompt = Annotated[str, Field(min_length=1), BeforeValidator(_in_words)]
"""A text, or a task of Florence-2."""

Layers = Annotated[FromList[tuple[int, ...]], Field(min_length=1)]
"""Numbers of hidden states."""


Prompts = Annotated[FromList[tuple[Prompt, ...]], Field(min_length=1)]
"""What Florence-2 reads together with a picture."""


class PretrainedEncoder(Strict):
    """A CLIP, SigLIP, DINOv2, ViT or Florence-2 of the hub or of a folder, with its weights."""

    type: Literal["pretrained"]
    source: Address = written_as("from")
    """`hf:owner/name`, or the path of a folder, such as one trained here."""
    layers: Layers = (-2,)
    """Hidden states to read: -1 is the last layer's, 0 the embeddings' (of Florence-2 what its
    tower sees, before any prompt)."""
    prompts: Prompts | None = None
    """For Florence-2 only, which reads a picture anew with each of them: its tasks, such as
    `<DETAILED_CAPTION>` and `<OCR>`, or any other text."""

    @property
    def cells(self) -> int | None:
        """Features of an image: not known before the encoder's settings are read."""
        return None

    @property
    def num_states(self) -> int:
        """Sets of features of an image."""
        return _num_states(self.layers, self.prompts or ("",))

    def findings(self) -> Iterator[Finding]:
        """Every prompt is used, and once."""
        if self.prompts is not None:
            yield from _prompt_findings(self.layers, self.prompts)


class VitEncoder(Strict):
    """A vision transformer with random weights, to be trained here."""

    type: Literal["vit"]
    width: Positive
    """Hidden size, and so the width of the features."""
    depth: Positive
    """Number of layers."""
    heads: Positive
    """Attention heads."""
    patch: Positive
    """Side of a patch in pixels."""
    image: Positive
    """Side in pixels of the square that the longer side of an image is resized to."""
    layers: Layers = (-1,)
    """Hidden states to read: -1 is the last layer's, 0 the embeddings'."""

    @property
    def cells(self) -> int | None:
        """Features of an image."""
        return (self.image // self.patch) ** 2

    @property
    def num_states(self) -> int:
        """Sets of features of an image."""
        return len(self.layers)

    def findings(self) -> Iterator[Finding]:
        """Widths, heads, patches and layers have to fit."""
        yield from _shape_findings(self, "the embeddings")


class Florence2Encoder(Strict):
    """A small Florence-2 with random weights: a tower sees, a transformer reads that with a prompt.

    A prompt is read byte by byte.
    """

    type: Literal["florence2"]
    width: Positive
    """Hidden size of the transformer, and so the width of the features."""
    depth: Positive
    """Number of its layers."""
    heads: Positive
    """Its attention heads."""
    patch: Positive
    """Side of a feature in pixels: 4, 8, 16, 32; the tower has a stage for every doubling."""
    image: Positive
    """Side in pixels of the square that the longer side of an image is resized to."""
    layers: Layers = (0, -1)
    """Hidden states to read: 0 is what the tower sees, the others are read with every prompt."""
    prompts: Prompts
    """What to read a picture with: tasks of Florence-2, such as `<OCR>`, or any other text."""

    @property
    def cells(self) -> int | None:
        """Features of an image."""
        return (self.image // self.patch) ** 2

    @property
    def stages(self) -> int:
        """Of the tower: the first makes cells of 4 px, each further one doubles their side."""
        return self.patch.bit_length() - 2

    @property
    def num_states(self) -> int:
        """Sets of features of an image."""
        return _num_states([layer % (self.depth + 1) for layer in self.layers], self.prompts)

    def findings(self) -> Iterator[Finding]:
        """Widths, heads, patches, layers and prompts have to fit."""
        yield from _shape_findings(self, "what the tower sees")
        yield from _prompt_findings([n % (self.depth + 1) for n in self.layers], self.prompts)
        if self.patch < 4 or self.patch & (self.patch - 1):
            yield Finding(
                ("patch",), f"no tower makes cells of {self.patch} px", "Choose 4, 8, 16 or 32."
            )
        elif self.width % 2 ** (self.stages - 1):
            yield Finding(
                ("width",),
                f"{self.width} cannot be halved for {self.stages - 1} stages before the last",
                f"Choose a multiple of {2 ** (self.stages - 1)}.",
                (("patch",),),
            )


def _shape_findings(encoder: VitEncoder | Florence2Encoder, first: str) -> Iterator[Finding]:
    """What does not fit between width, heads, patches and layers."""
    yield from heads_divide_width(encoder.heads, encoder.width)
    if encoder.image % encoder.patch:
        yield Finding(
            ("image",),
            f"{encoder.image} px cannot be cut into patches of {encoder.patch} px",
            f"Choose a multiple of {encoder.patch}.",
            (("patch",),),
        )
    for index, layer in enumerate(encoder.layers):
        if not -encoder.depth - 1 <= layer <= encoder.depth:
            yield Finding(
                ("layers", index),
                f"there is no layer {layer} among {encoder.depth}",
                f"Choose from {-encoder.depth - 1} to {encoder.depth}; 0 is {first}.",
                (("depth",),),
            )


def _num_states(layers: Sequence[int], prompts: Sequence[str]) -> int:
    """Hidden state 0 comes before the prompts, every other is there once for each."""
    return sum(len(prompts) if layer else 1 for layer in layers)


def _prompt_findings(layers: Sequence[int], prompts: Sequence[str]) -> Iterator[Finding]:
    """Prompts that would be ignored, and those that would be read twice."""
    if not any(layers):
        yield Finding(
            ("prompts",),
            "hidden state 0 comes before any prompt: they would be ignored",
            "Add -1 to `layers`, or take the prompts out.",
            (("layers",),),
        )
    for index, prompt in enumerate(prompts):
        if prompt in prompts[:index]:
            yield Finding(
                ("prompts", index),
                f"{prompt!r} is read already: the same features twice",
                "Take one of them out.",
            )


VisionEncoder = Annotated[
    PretrainedEncoder | VitEncoder | Florence2Encoder, Field(discriminator="type")
]
"""A vision encoder."""
