"""Any Hugging Face causal decoder, fed with embeddings, over rows in which samples are packed.

Shapes: R rows, T slots a row, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_LOGIT_CHANGES = ("final_logit_softcapping", "logits_scaling", "logit_scale")
"""Settings by which some decoders change their logits after the head."""


class LanguageModel(nn.Module):
    """A causal decoder whose rows may hold several samples, none seeing another.

    Samples of a row are told apart by `position_ids` that restart at zero: given those, no mask
    and no cache, Transformers makes attention block-causal.

    Args:
        model: a Hugging Face causal language model with attention layers and a linear head.

    Raises:
        ValueError: if samples cannot be kept apart in it, or its logits are not a plain product
            with the head, which the chunked loss relies on.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        _refuse_unpackable(model.config)
        self.model = model

    @classmethod
    def llama(
        cls,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        kv_heads: int | None = None,
        ffn: int | None = None,
        rope_theta: float = 10_000.0,
        init_std: float = 0.02,
        max_positions: int = 4096,
        tie_embeddings: bool = False,
    ) -> Self:
        """A Llama with random weights.

        Args:
            vocabulary: number of text tokens.
            width: width of the residual stream.
            depth: number of layers.
            heads: query heads.
            kv_heads: key and value heads; as many as `heads` if None.
            ffn: inner width of the feed-forward; 8/3 of `width`, up to a multiple of 64, if None.
            rope_theta: base of the rotary positions.
            init_std: standard deviation of the random weights.
            max_positions: longest sample.
            tie_embeddings: one matrix for embedding and head.

        Raises:
            ValueError: if `heads` does not divide `width` into even shares, or `kv_heads` not
                `heads`.
        """
        if width % (2 * heads):
            raise ValueError(
                f"width {width} over {heads} heads does not give each an even number of channels, "
                "which rotary positions need. Make width a multiple of twice the heads."
            )
        if heads % (kv_heads or heads):
            raise ValueError(
                f"{heads} heads cannot share {kv_heads} key-value heads evenly. "
                "Make kv_heads a divisor of heads."
            )
        config = LlamaConfig(
            initializer_range=init_std,
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=ffn or -(-8 * width // 3 // 64) * 64,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            tie_word_embeddings=tie_embeddings,
            bos_token_id=None,
            eos_token_id=None,
        )
        return cls(_from_config(config))

    @classmethod
    def pretrained(cls, name_or_path: str, dtype: torch.dtype = torch.float32) -> Self:
        """A decoder with its trained weights.

        Args:
            name_or_path: hub name or folder of a Hugging Face causal language model.
            dtype: of the weights.
        """
        model = AutoModelForCausalLM.from_pretrained(
            name_or_path, dtype=dtype, attn_implementation="sdpa"
        )
        return cls(model)

    @classmethod
    def shaped_like(cls, source: str | PretrainedConfig) -> Self:
        """A decoder with random weights in the shape of a pretrained one; reads its config only.

        Args:
            source: hub name or folder of a Hugging Face causal language model, or its config.

        Raises:
            ValueError: if the config cannot be read, or the hub not be reached.
        """
        if isinstance(source, PretrainedConfig):
            return cls(_from_config(source))
        try:
            config = AutoConfig.from_pretrained(source)
        except OSError as error:
            raise ValueError(
                f"the config of {source}, which says how wide and deep it is, cannot be read "
                f"({str(error).splitlines()[0]}) Connect to the hub, or name a folder that holds "
                "it. A `type: llama` of the same shape needs neither, for a plan."
            ) from error
        return cls(_from_config(config))

    @property
    def width(self) -> int:
        """E, the width of the residual stream."""
        return cast(nn.Embedding, self.model.get_input_embeddings()).embedding_dim

    @property
    def depth(self) -> int:
        """Number of layers; hidden state 0 is the embedding, `depth` the final, normalised one."""
        return cast(int, self.text_config.num_hidden_layers)

    @property
    def vocabulary(self) -> int:
        """V, the number of text tokens."""
        return self.head_weight.shape[0]

    @property
    def max_positions(self) -> int:
        """Longest sample the positions are meant for."""
        return cast(int, self.text_config.max_position_embeddings)

    @property
    def head_weight(self) -> Tensor:
        """(V, E): logits are the product of the final hidden state with it."""
        return self._head.weight

    @property
    def head_bias(self) -> Tensor | None:
        """(V,), or None as in nearly all decoders."""
        return cast("Tensor | None", self._head.bias)  # torch types it as always there

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids to embeddings, (..., E)."""
        return cast(Tensor, self.model.get_input_embeddings()(ids))

    def hidden_states(
        self,
        embeddings: Tensor,
        position_ids: Tensor,
        layers: Sequence[int] = (),
        visual: Tensor | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run the decoder over packed rows.

        Args:
            embeddings: (R, T, E).
            position_ids: (R, T) int64, restarting at 0 with every sample of a row.
            layers: which hidden states to keep: 0 is `embeddings`, `depth` the final one.
            visual: slots of visual tokens, (V,) int64, for decoders that treat them apart.

        Returns:
            The final, normalised hidden states, (R, T, E), and those of `layers`, by number.

        Raises:
            ValueError: if a layer is not in 0..depth.
        """
        outside = [layer for layer in layers if not 0 <= layer <= self.depth]
        if outside:
            raise ValueError(
                f"hidden states {outside} were asked of a decoder with {self.depth} layers: "
                f"they are numbered 0 (the embedding) to {self.depth} (the output)."
            )
        # Every layer's input is kept for the backward pass anyway: asking for all costs nothing.
        decoder = self.model.get_decoder()  # type: ignore[no-untyped-call]
        output = decoder(
            inputs_embeds=embeddings,
            position_ids=position_ids,
            use_cache=False,
            output_hidden_states=bool(layers),
            **({} if visual is None else self.routing(embeddings.shape[:2], visual)),
        )
        states = {layer: output.hidden_states[layer] for layer in layers}
        return output.last_hidden_state, states

    def routing(self, slots: tuple[int, ...], visual: Tensor) -> dict[str, Any]:
        """What the decoder has to be told of visual tokens; this one treats all tokens alike.

        Args:
            slots: (R, T).
            visual: slots of visual tokens, (V,) int64.
        """
        return {}

    def prompted(self, slots: tuple[int, ...], visual: Tensor) -> AbstractContextManager[None]:
        """Inside, the decoder's first call is a prompt with these visual tokens; see `routing`."""
        return nullcontext()

    def recompute_activations(self) -> None:
        """Keep only each layer's input for the backward pass and compute the rest again."""
        model: Any = self.model
        # Transformers renamed it within its version 5; the old name warns in newer ones.
        new = getattr(model, "activation_checkpointing_enable", None)
        (new or model.gradient_checkpointing_enable)()

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all text tokens, (..., V), of final hidden states; for few tokens only."""
        return cast(Tensor, self._head(hidden))

    @property
    def _head(self) -> nn.Linear:
        return cast(nn.Linear, self.model.get_output_embeddings())  # type: ignore[no-untyped-call]

    @property
    def text_config(self) -> Any:
        """The decoder's own settings, as Transformers names them."""
        return self.model.config.get_text_config(decoder=True)


def _from_config(config: PretrainedConfig) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="sdpa"
    )
    return cast(PreTrainedModel, model)


def _refuse_unpackable(config: Any) -> None:
    text = config.get_text_config(decoder=True)
    strange = set(getattr(text, "layer_types", None) or ()) - _ATTENTION_LAYERS
    if strange:
        raise ValueError(
            f"{config.model_type} has layers of the kind {sorted(strange)}, which would mix the "
            "samples packed in a row. Choose a decoder that has attention layers only."
        )
    changed = [n for n in _LOGIT_CHANGES if getattr(text, n, None) not in (None, 1, 1.0)]
    if changed:
        raise ValueError(
            f"{config.model_type} changes its logits after the head ({', '.join(changed)}), which "
            "the chunked loss would leave out. Choose a decoder with a plain linear head."
        )
