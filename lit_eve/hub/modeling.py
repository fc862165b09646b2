"""A vision-language model behind Transformers' interface for image-text-to-text models.

Shapes: N samples, L slots of the longest prompt, V visual tokens, I images, M windows, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from lit_eve.hub.configuration import VisionLanguageConfig

IMAGES = ("pixel_values", "image_grids")


@dataclass(frozen=True)
class Shown:
    """The images of a prompt, for layers that look at them at every token."""

    sight: Any
    slots: Tensor
    """(V,) int64: `row * L + slot` of every visual token of the prompt."""
    positions: Tensor
    """(N, L) int64: 0, 1, 2, ... over the prompt."""


@dataclass
class Output(CausalLMOutputWithPast):
    """As Transformers', and what was shown, which later tokens may look at."""

    shown: Shown | None = None


class LitEveForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """What `AutoModelForImageTextToText` gives for an exported run.

    The model inside is the one that was trained; here it only learns Transformers' manners.

    Args:
        config: of the exported folder.
    """

    config_class = VisionLanguageConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012  # as its base class
    _supports_sdpa = True

    def __init__(self, config: VisionLanguageConfig) -> None:
        super().__init__(config)
        from lit_eve.hub.building import build  # the rooms behind it import transformers again

        self.model = build(config)
        decoder = self.model.language_model.model
        wanted = config._attn_implementation
        if wanted is not None and wanted != decoder.config._attn_implementation:
            decoder.set_attn_implementation(wanted)
        self._no_split_modules = sorted(
            {name for _, part in self._parts() for name in part._no_split_modules or ()}
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _parts(self) -> Iterator[tuple[str, PreTrainedModel]]:
        """Transformers' own models inside, by name."""
        for name, module in self.named_modules():
            if isinstance(module, PreTrainedModel) and module is not self:
                yield name, module

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Weights that are one with another: those of the models inside, at whatever depth.

        Transformers asks a model's direct children only, and ours has the decoder further down.
        """
        return {
            f"{name}.{tied}": f"{name}.{source}"
            for name, part in self._parts()
            for tied, source in part.get_expanded_tied_weights_keys().items()
        }

    def get_input_embeddings(self) -> Any:
        """The decoder's table of text tokens."""
        return self.model.language_model.model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """The decoder's head."""
        return self.model.language_model.model.get_output_embeddings()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        shown: Shown | None = None,
        **options: Any,
    ) -> Output:
        """Scores of the next token.

        Args:
            input_ids: (N, L) int64, the image token wherever a visual token goes.
            pixel_values: (M, S, C*P*P), the windows of all images one after another.
            image_grids: (I, 2) int64, rows and columns of windows of every image.
            attention_mask: (N, L), 0 at padding.
            position_ids: (N, L); counted along `attention_mask` if None.
            past_key_values: the decoder's cache.
            inputs_embeds: (N, L, E) in place of `input_ids` and the images.
            labels: (N, L) int64, -100 where nothing is to be said.
            shown: what the output of the prompt says was shown, for the tokens after it.
            **options: what the decoder understands besides.

        Returns:
            `logits` (N, L, tokens), the cache, and the mean `loss` if there are labels.

        Raises:
            ValueError: if the prompt has another number of image tokens than the images need, or
                both ids and embeddings are given, or neither.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the decoder reads input_ids or inputs_embeds: give one of the two.")
        routing: dict[str, Any] = {}
        if input_ids is not None:
            started = past_key_values is not None and past_key_values.get_seq_length() > 0
            if pixel_values is not None or not started:
                inputs_embeds, shown = self._see(input_ids, pixel_values, image_grids)
                routing = self.model.language_model.routing(input_ids.shape, shown.slots)
            else:
                inputs_embeds = self.model.language_model.embed(input_ids)  # (N, L, E)
            if position_ids is None and attention_mask is not None and not started:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)  # (N, L)
        with self._looking(shown):
            output = self.model.language_model.model(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                **routing,
                **options,
            )
        loss = None
        if labels is not None:
            loss = self.loss_function(output.logits, labels, output.logits.shape[-1])
        return Output(
            loss=loss,
            logits=output.logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            shown=shown if shown is not None and shown.sight.features is not None else None,
        )

    def _see(
        self, ids: Tensor, pixels: Tensor | None, grids: Tensor | None
    ) -> tuple[Tensor, Shown]:
        """The decoder's input, (N, L, E), with what is seen among the words."""
        from lit_eve.hub.seeing import packed, slots_of
        from lit_eve.models.splice import splice

        images = packed(pixels, grids, self.model.layout, ids.device)
        slots = slots_of(ids, images, self.config.image_token_id)
        decoder = self.model.language_model
        sight = self.model.look(images)
        shown = ids == self.config.image_token_id  # (N, L)
        words = decoder.embed(ids.masked_fill(shown, self.config.pad_token_id))  # (N, L, E)
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)  # (N, L)
        return splice(words, sight.tokens, slots), Shown(sight, slots, positions)

    def _looking(self, shown: Shown | None) -> AbstractContextManager[None]:
        if shown is None:
            return nullcontext()
        attending: AbstractContextManager[None] = self.model.attending(
            shown.sight, shown.slots, shown.positions
        )
        return attending

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *arguments: Any, **options: Any
    ) -> dict[str, Any]:
        """Keeps what was shown for the tokens that follow."""
        updated: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, *arguments, **options
        )
        return updated | {"shown": outputs.shown}

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Any = None,
        **options: Any,
    ) -> Any:
        """Several answers to a prompt: its images are repeated with it, whole and in order."""
        from lit_eve.hub.seeing import repeated

        images = {name: options.pop(name) for name in IMAGES if options.get(name) is not None}
        before = input_ids
        expanded, options = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, is_encoder_decoder, input_ids, **options
        )
        if len(images) == len(IMAGES) and expand_size > 1 and before is not None:
            counts = (before == self.config.image_token_id).sum(1)  # (N,)
            pixels, grids = (images[name] for name in IMAGES)
            again = repeated(pixels, grids, counts, self.model.layout, expand_size)
            images = dict(zip(IMAGES, again, strict=True))
        return expanded, options | images
