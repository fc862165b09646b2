"""EVE v2's divide-and-conquer: a second set of weights for visual tokens inside the decoder.

Every token is computed once, by the weights of its own kind; attention joins them.

Shapes: R rows, T slots a row, V visual tokens, E width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_eve.models.language_model import LanguageModel

Divided = Literal["norms", "ffn", "full"]
"""What visual tokens have of their own: layer norms; the feed-forward; these, and attention's
projections."""


@dataclass(frozen=True)
class Routing:
    """Which tokens are text and which are visual, in R * T slots."""

    text: Tensor
    """(R*T - V,) int64."""
    visual: Tensor
    """(V,) int64."""

    @classmethod
    def of(cls, visual: Tensor, num_slots: int) -> Routing:
        """All slots that are not `visual` are text; the host need not wait for the device."""
        kind = torch.zeros(num_slots, dtype=torch.int8, device=visual.device)
        order = kind.index_fill(0, visual, 1).argsort(stable=True)
        return cls(order[: num_slots - len(visual)], visual)


class _Current:
    """The routing that holds inside a layer; set when the layer starts."""

    routing: Routing | None = None


class Routed(nn.Module):
    """A layer twice: `text` for text tokens, `vision` for visual ones.

    Args:
        layer: becomes `text`; `vision` starts as a copy of it.
        current: tells which token is which; where it does not say, all are text.
    """

    def __init__(self, layer: nn.Module, current: _Current) -> None:
        super().__init__()
        self.text = layer
        self.vision = deepcopy(layer)
        self._current = current

    def forward(self, tokens: Tensor) -> Tensor:
        """(R, T, E) to (R, T, E'), each token through the layer of its kind."""
        routing = self._current.routing
        if routing is None:
            whole: Tensor = self.text(tokens)
            return whole
        flat = tokens.flatten(0, 1)  # (R*T, E)
        text: Tensor = self.text(flat.index_select(0, routing.text))  # (R*T - V, E')
        visual = self.vision(flat.index_select(0, routing.visual))  # (V, E')
        joined = text.new_empty(len(flat), text.shape[1])
        joined = joined.index_copy(0, routing.text, text).index_copy(0, routing.visual, visual)
        return joined.view(*tokens.shape[:2], text.shape[1])  # (R, T, E')


class DividedLanguageModel(LanguageModel):
    """A decoder with weights of their own for visual tokens.

    With the text weights frozen, text alone gives bit by bit what the plain decoder gives, however
    the other weights are trained.

    Args:
        plain: the decoder; taken over, not copied.
        divided: what visual tokens get of their own, as a copy of the text's.

    Raises:
        ValueError: if the decoder's layers are not built of norms, attention and feed-forward
            under the usual names.

    Source:
        Diao et al. 2025, arXiv:2502.06788, section 3.2; its figure 5 compares these variants. The
        published code computes both weights for all tokens and blends; this routes.
    """

    def __init__(self, plain: LanguageModel, divided: Divided) -> None:
        super().__init__(plain.model)
        self._current = _Current()
        for layer in _layers(self.model):
            for owner, name in _to_divide(layer, divided):
                setattr(owner, name, Routed(getattr(owner, name), self._current))
            layer.current = self._current  # type: ignore[assignment]
            layer.__class__ = _routed_class(type(layer))  # type: ignore[arg-type]  # hashable

    def copy_text_weights(self) -> None:
        """Start the visual tokens' weights over from the text's, as EVE v2 does after stage 0."""
        for module in self.modules():
            if isinstance(module, Routed):
                module.vision.load_state_dict(module.text.state_dict())

    def routing(self, slots: tuple[int, ...], visual: Tensor) -> dict[str, Any]:
        """See `LanguageModel`."""
        return {"routing": Routing.of(visual, slots[0] * slots[1])}

    @contextmanager
    def prompted(self, slots: tuple[int, ...], visual: Tensor) -> Iterator[None]:
        """See `LanguageModel`."""

        def add(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            is_prompt = kwargs.get("inputs_embeds") is not None  # later calls bring ids: text
            return args, kwargs | (self.routing(slots, visual) if is_prompt else {})

        handle = self.model.register_forward_pre_hook(add, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@cache
def _routed_class(base: type[nn.Module]) -> type[nn.Module]:
    """A decoder layer that is told which tokens are visual.

    A class and not a hook: what recomputes activations repeats `forward`, but no hooks.
    """

    class RoutedLayer(base):  # type: ignore[misc, valid-type]
        current: _Current

        def forward(self, *args: Any, routing: Routing | None = None, **kwargs: Any) -> Any:
            self.current.routing = routing
            return super().forward(*args, **kwargs)

    RoutedLayer.__name__ = RoutedLayer.__qualname__ = f"Routed{base.__name__}"
    return RoutedLayer


def _layers(model: Any) -> Sequence[nn.Module]:
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(
            f"{model.config.model_type} has no list of `layers` that could be divided between text "
            "and image. Choose a Llama, Qwen, Mistral or the like."
        )
    return list(layers)


def _to_divide(layer: nn.Module, divided: Divided) -> list[tuple[nn.Module, str]]:
    """Owner and name of every part of a layer that visual tokens get of their own."""
    norms = [(layer, name) for name, _ in layer.named_children() if name.endswith("norm")]
    attention, ffn = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    if not norms or attention is None or ffn is None:
        raise ValueError(
            f"a layer of {type(layer).__name__} has no norms, `self_attn` and `mlp` of its own to "
            "divide between text and image. Choose a Llama, Qwen, Mistral or the like."
        )
    linear = [(attention, n) for n, m in attention.named_children() if isinstance(m, nn.Linear)]
    parts = {"norms": norms, "ffn": [(layer, "mlp")], "full": [*norms, *linear, (layer, "mlp")]}
    return parts[divided]
