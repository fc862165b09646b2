"""Florence-2 as a vision encoder: how a picture looks under each of several prompts.

Shapes: I images, C channels, N side of the encoder's input, P = (N / patch)^2 cells, D width,
B prompts, T tokens of the longest, S = 1 + P + T slots of the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    Florence2Config,
    Florence2Model,
    PretrainedConfig,
)

from lit_eve.models.teacher import Normalisation
from lit_eve.models.vision_encoder import (
    VisionEncoder,
    normalisation_of,
    preprocessor_of,
    refuse_outside,
)

NOTHING = -1
"""Stands where a prompt is shorter than the longest."""

Prompts = Mapping[str, Sequence[int]]
"""Tokens of every prompt, by its text."""


class Florence2Encoder(VisionEncoder):
    """Florence-2 without its decoder: a picture is seen once, and read anew with every prompt.

    A tower of convolutions and attention (DaViT) makes a row of features of a picture, which is the
    encoder's hidden state 0, the same for all prompts. A transformer reads that row together with
    the words of a prompt; its layers are the hidden states from 1 on, one set for every prompt.
    The tower takes any size, but Florence-2 learnt on one square (768 px), and the places of its
    features are learnt as well: pictures are brought onto that square as for other encoders. The
    mean of all features, which stands before them in the row, is read but not given.

    Of the table of words only the rows of the prompts are kept.

    Args:
        model: whose tower, projector and encoder become part of this.
        layers: hidden states to give.
        prompts: those to read with, in this order; tokens are `model`'s.
        side: N.
        own: how the model wants its pixels.
        given: how the pixels of the batches are normalised.

    Raises:
        ValueError: if there is no such layer, a prompt does not fit behind the picture, prompts
            would be ignored or are missing, or the square is not one of whole cells it has
            places for.

    Source:
        Chen et al. 2024, arXiv:2412.04424; Xiao et al. 2023, arXiv:2311.06242.
    """

    prompt_tokens: Tensor

    def __init__(
        self,
        model: Florence2Model,
        layers: Sequence[int],
        prompts: Prompts,
        side: int,
        own: Normalisation,
        given: Normalisation,
    ) -> None:
        config: Any = model.config
        super().__init__(side, prod(config.vision_config.patch_stride), own, given)
        depth = config.text_config.encoder_layers
        refuse_outside(layers, depth, "what the tower sees, before any prompt")
        self.layers = tuple(layer % (depth + 1) for layer in layers)
        _refuse_unused(self.layers, prompts)
        self._refuse_long(config, prompts)
        self.vision_tower = model.vision_tower
        self.projector = model.multi_modal_projector
        self.encoder = model.language_model.encoder if any(self.layers) else None
        kept = sorted({token for tokens in prompts.values() for token in tokens})
        few = {old: new for new, old in enumerate(kept)}
        renumbered = {text: [few[token] for token in prompts[text]] for text in prompts}
        if self.encoder is not None:
            self.encoder.embed_tokens = _rows(self.encoder.embed_tokens, kept)
        self.register_buffer("prompt_tokens", _padded(list(renumbered.values())))  # (B, T)
        self._ragged = len({len(tokens) for tokens in prompts.values()}) > 1
        self._config = _cut(config, side, renumbered)

    @classmethod
    def pretrained(
        cls, name_or_path: str, layers: Sequence[int], prompts: Sequence[str], given: Normalisation
    ) -> Self:
        """A Florence-2 with its trained weights, as Transformers' own class reads it.

        Args:
            name_or_path: hub name or folder, with tokenizer and `preprocessor_config.json`.
            layers: see the class.
            prompts: their texts.
            given: see the class.

        Raises:
            ValueError: if it is in Microsoft's own format, or does not say how it wants its pixels
                and their square.
        """
        config = settings_of(name_or_path, prompts)
        own = normalisation_of(name_or_path, preprocessor_of(name_or_path))
        model = AutoModel.from_pretrained(
            name_or_path, dtype=torch.float32, attn_implementation="sdpa"
        )
        chosen = {text: config.prompt_tokens[text] for text in prompts}
        return cls(model, layers, chosen, config.image_size, own, given)

    @classmethod
    def shaped_like(
        cls,
        config: PretrainedConfig,
        layers: Sequence[int],
        prompts: Sequence[str],
        given: Normalisation,
    ) -> Self:
        """The shape of a pretrained one; weights and pixel scale come with a file.

        Args:
            config: of `settings_of`, or another encoder's `config`.
            layers: see the class.
            prompts: their texts, which `config` has tokens of.
            given: see the class.
        """
        model = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation="sdpa"
        )
        chosen = {text: config.prompt_tokens[text] for text in prompts}
        return cls(model, layers, chosen, config.image_size, given, given)

    @classmethod
    def random(
        cls,
        config: Florence2Config,
        layers: Sequence[int],
        prompts: Sequence[str],
        side: int,
        given: Normalisation,
    ) -> Self:
        """A Florence-2 with random weights that reads its prompts byte by byte.

        Args:
            config: its shape; of 256 words at least.
            layers: see the class.
            prompts: their texts.
            side: see the class.
            given: see the class.
        """
        model = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation="sdpa"
        )
        tokens = {text: list(text.encode()) for text in prompts}
        return cls(model, layers, tokens, side, given, given)

    @property
    def config(self) -> PretrainedConfig:
        """See `VisionEncoder`."""
        return self._config

    @property
    def width(self) -> int:
        """See `VisionEncoder`."""
        return int(self._config.text_config.d_model)

    @property
    def num_states(self) -> int:
        """One of hidden state 0, one for every prompt of every other."""
        return sum(len(self.prompt_tokens) if layer else 1 for layer in self.layers)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """See `VisionEncoder`: hidden states in the order of `layers`, of each all prompts."""
        weight = next(self.vision_tower.parameters())
        grid = self.vision_tower(pixels.to(weight.dtype)).last_hidden_state  # (I, C', n, n)
        row = self.projector(grid)  # (I, 1 + P, D): the mean, then every cell
        states = self._read(row) if any(self.layers) else ()
        given: list[Tensor] = []
        for layer in self.layers:
            given.extend(states[layer].unbind() if layer else [row])  # (I, S or 1 + P, D) each
        return [state[:, 1 : 1 + self.cells] for state in given]

    def _read(self, row: Tensor) -> list[Tensor]:
        """Hidden states of all layers, (B, I, S, D) each; all prompts of all images in one pass."""
        assert self.encoder is not None  # a layer was chosen
        images, prompts = len(row), len(self.prompt_tokens)
        words = self.encoder.embed_tokens(self.prompt_tokens.clamp(min=0))  # (B, T, D)
        words = words[:, None].expand(-1, images, -1, -1)  # (B, I, T, D)
        joined = torch.cat([row.expand(prompts, -1, -1, -1), words], dim=2)  # (B, I, S, D)
        output = self.encoder(
            inputs_embeds=joined.flatten(0, 1),
            attention_mask=self._readable(row),
            output_hidden_states=True,
        )
        return [state.unflatten(0, (prompts, images)) for state in output.hidden_states]

    def _readable(self, row: Tensor) -> Tensor | None:
        """What may be looked at, (B * I, 1, 1, S) bool; None where that is everything."""
        if not self._ragged:
            return None
        words = self.prompt_tokens != NOTHING  # (B, T)
        seen = words.new_ones(len(words), row.shape[1])  # (B, 1 + P)
        mask = torch.cat([seen, words], dim=1)  # (B, S)
        return mask.repeat_interleave(len(row), dim=0)[:, None, None]

    def _refuse_long(self, config: Any, prompts: Prompts) -> None:
        cells, places = self.side // self.patch, config.vision_config.max_position_embeddings
        if self.side % self.patch or cells > places:
            raise ValueError(
                f"a square of {self.side} px cannot be cut into cells of {self.patch} px, of which "
                f"this Florence-2 has places for {places} a side. Choose a multiple of "
                f"{self.patch}, {places * self.patch} at most."
            )
        left = config.text_config.max_position_embeddings - 1 - self.cells
        for text, tokens in prompts.items():
            if len(tokens) > left:
                raise ValueError(
                    f"the prompt {text!r} has {len(tokens)} tokens and this Florence-2 reads {left}"
                    f" behind a picture of {self.cells} features: its end would be lost. Shorten "
                    "it in model.vision_encoder.prompts."
                )


def settings_of(name_or_path: str, prompts: Sequence[str]) -> PretrainedConfig:
    """A Florence-2's settings, with the side of its square and the tokens of prompts among them.

    Args:
        name_or_path: hub name or folder.
        prompts: their texts.

    Raises:
        ValueError: if they are in Microsoft's own format, or there is no word for a prompt or no
            square of pictures.
    """
    config: PretrainedConfig = AutoConfig.from_pretrained(name_or_path)
    if hasattr(config.vision_config, "dim_embed"):
        raise ValueError(
            f"{name_or_path} is in the format of Microsoft's own code, which would have to be run "
            "to read it. Choose one that Transformers reads itself, such as "
            "hf:florence-community/Florence-2-large-ft."
        )
    known = dict(getattr(config, "prompt_tokens", None) or {})
    if not all(text in known for text in prompts):
        known = _tokens(name_or_path, prompts)
    config.prompt_tokens = known
    if getattr(config, "image_size", None) is None:
        config.image_size = _side(name_or_path)
    return config


def _tokens(name_or_path: str, prompts: Sequence[str]) -> dict[str, list[int]]:
    """As Florence-2's processor writes them: a beginning, the words, an end."""
    tokenizer: Any = AutoTokenizer.from_pretrained(name_or_path)
    found: dict[str, list[int]] = {}
    for text in prompts:
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        if (
            not words or tokenizer.unk_token_id in words
        ):  # Transformers makes one up if none is there
            raise ValueError(
                f"the tokenizer of {name_or_path} has no words for the prompt {text!r}. Give the "
                "folder of a whole Florence-2, with its tokenizer, or prompts that it was exported "
                "with."
            )
        found[text] = [tokenizer.bos_token_id, *words, tokenizer.eos_token_id]
    return found


def _side(name_or_path: str) -> int:
    """Of the square that a pretrained model takes."""
    size = preprocessor_of(name_or_path).get("size")
    sides = {size.get("height"), size.get("width")} if isinstance(size, dict) else set()
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ValueError(
            f"the preprocessor of {name_or_path} says size: {size}, and a square is needed to know "
            "how many features there are. Write height and width into its "
            "preprocessor_config.json, both the same."
        )
    return side


def _refuse_unused(layers: Sequence[int], prompts: Prompts) -> None:
    if any(layers) and not prompts:
        raise ValueError(
            f"layers {[layer for layer in layers if layer]} of Florence-2 read a picture together "
            "with a prompt, and there is none. Write model.vision_encoder.prompts, or layers: [0], "
            "which is the picture alone."
        )
    if prompts and not any(layers):
        raise ValueError(
            f"hidden state 0 comes before any prompt: {list(prompts)} would be ignored. Add -1 to "
            "model.vision_encoder.layers, or take the prompts out."
        )


def _rows(table: nn.Embedding, kept: Sequence[int]) -> nn.Embedding:
    """The same embedding with some of its rows."""
    few: nn.Embedding = deepcopy(table)
    weight = table.weight.detach()[
        torch.tensor(kept, dtype=torch.int64, device=table.weight.device)
    ]
    few.weight, few.num_embeddings, few.padding_idx = nn.Parameter(weight), len(kept), None
    return few


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows), default=0)
    filled = [[*row, *[NOTHING] * (longest - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.int64).view(len(rows), longest)


def _cut(config: Any, side: int, prompts: Prompts) -> PretrainedConfig:
    """Settings of what is left of a model, from which its shape can be made again."""
    left = deepcopy(config)
    left.image_size, left.prompt_tokens = side, dict(prompts)
    reading = left.text_config
    reading.decoder_layers = reading.pad_token_id = 0
    reading.vocab_size = 1 + max((t for tokens in prompts.values() for t in tokens), default=0)
    settings: PretrainedConfig = left
    return settings
