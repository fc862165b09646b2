"""The decoder that reads and writes text, and the text tokenizer in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from lit_eve.schema.addresses import Address
from lit_eve.schema.base import Finding, Positive, PositiveReal, Strict, written_as


class Decoder(Strict):
    """What all decoders have."""

    divide: Literal["norms", "ffn", "full"] | None = None
    """What visual tokens have weights of their own for (EVEv2's divide-and-conquer): norms; ffn;
    full: both, and the attention's projections. One set of weights for all tokens when left out."""


class Llama(Decoder):
    """A Llama decoder with random weights (Hugging Face's `LlamaForCausalLM`)."""

    type: Literal["llama"]
    width: Positive
    """Hidden size."""
    depth: Positive
    """Number of layers."""
    heads: Positive
    """Attention heads; the width is split among them."""
    kv_heads: Positive | None = None
    """Heads for keys and values (grouped-query attention); one per head when left out."""
    ffn: Positive | None = None
    """Inner width of the feed-forward layers; 8/3 of the width when left out."""
    rope_theta: PositiveReal = 10000.0
    """Base of the rotary position embedding."""
    init_std: PositiveReal = 0.02
    """Standard deviation of the random weights. Transformers' 0.02 suits thousands of channels;
    about 1 / sqrt(width) lets a narrow decoder start learning sooner."""
    max_positions: Positive = 2048
    """Longest sample in tokens."""
    tie_embeddings: bool = True
    """Use one matrix for reading and for writing tokens."""

    def findings(self) -> Iterator[Finding]:
        """Widths and heads have to fit."""
        yield from heads_divide_width(self.heads, self.width)
        if self.width % self.heads == 0 and (self.width // self.heads) % 2:
            yield Finding(
                ("heads",),
                f"a head of {self.width // self.heads} numbers cannot be rotated in pairs",
                f"Choose heads so that width / heads is even: {_divisors(self.width // 2)}.",
                (("width",),),
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            yield Finding(
                ("kv_heads",),
                f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly",
                f"Choose one of {_divisors(self.heads)}.",
                (("heads",),),
            )


class Pretrained(Decoder):
    """A causal decoder of the Hugging Face hub or of a folder, with its weights."""

    type: Literal["pretrained"]
    source: Address = written_as("from")
    """`hf:owner/name`, or the path of a folder."""


LanguageModel = Annotated[Llama | Pretrained, Field(discriminator="type")]
"""A decoder."""


class TrainedText(Strict):
    """A byte-pair tokenizer, trained on the texts of the experiment's own datasets."""

    type: Literal["trained"]
    vocabulary: Annotated[int, Field(ge=300)]
    """Number of tokens: 256 bytes, the special ones, and what is merged from them."""


class BytesText(Strict):
    """One token per byte: nothing to train, long rows."""

    type: Literal["bytes"]


class SavedText(Strict):
    """The very tokenizer of another model, so that its weights mean here what they meant there."""

    type: Literal["saved"]
    source: Address = written_as("from")
    """The folder of an exported model, or `text/` of a run."""


Text = Annotated[TrainedText | BytesText | SavedText, Field(discriminator="type")]
"""A text tokenizer."""


def heads_divide_width(heads: int, width: int) -> Iterator[Finding]:
    """A finding at `heads` unless the width can be split among them."""
    if width % heads:
        yield Finding(
            ("heads",),
            f"{heads} heads cannot share a width of {width} evenly",
            f"Choose one of {_divisors(width)}, or another width.",
            (("width",),),
        )


def _divisors(number: int) -> str:
    """Divisors that make plausible head counts, as text."""
    found = [str(n) for n in range(1, min(number, 128) + 1) if number % n == 0]
    return ", ".join(found)
