"""OpenAI's released dVAE as an image tokenizer of this platform.

The release is two files, `encoder.pkl` and `decoder.pkl`: whole modules, pickled. Reading such a
file in the usual way runs whatever it says. Here its classes are replaced by inert records, nothing
else than tensors and plain values is made, and any other name in it stops the reading.

Shapes: K codes, D width of a code vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from lit_eve.importing.checkpoint import safetensors_content, torch_content
from lit_eve.models.tokenizers.dalle import GROUPS, DalleDecoder, DalleEncoder
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.pixels import LogitLaplacePixels

VALUES_PER_POSITION = 3 * 8 * 8

DEEPEST = 20
"""Tables in tables that are looked into; the release has six, a table inside itself no end."""

State = dict[str, Tensor]

_MODULES = (
    "dall_e.encoder.Encoder",
    "dall_e.encoder.EncoderBlock",
    "dall_e.decoder.Decoder",
    "dall_e.decoder.DecoderBlock",
    "dall_e.utils.Conv2d",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
)
"""Classes in the released files. Each becomes a `_Record`."""


class _Record:
    """What was written down of an object: attributes, no behaviour."""


@dataclass(frozen=True)
class DalleSize:
    """Size of a dVAE, as its tensors say it."""

    num_codes: int
    code_width: int
    width: int
    blocks: int


def read_released(path: Path) -> State:
    """Tensors of a released module by name, from the pickled module, a state dict or safetensors.

    Args:
        path: `encoder.pkl`, `decoder.pkl`, or the state dict of one of them.

    Raises:
        ValueError: if the file is missing, damaged, or would run code.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file: give the released encoder.pkl or decoder.pkl.")
    if path.suffix == ".safetensors":
        return safetensors_content(path)
    with safe_globals([(_Record, name) for name in _MODULES]):
        content = torch_content(path)
    tensors = dict(_tensors(content, "", depth=0))
    if not tensors:
        raise ValueError(f"{path} holds no tensors: is it the released encoder.pkl or decoder.pkl?")
    return tensors


def size_of(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> DalleSize:
    """The size that two released state dicts have.

    Raises:
        ValueError: if a tensor that says it is missing or of another shape, or the two do not
            belong together.
    """
    num_codes = _kernel(encoder, "encoder", "blocks.output.conv.w")[0]
    width = _kernel(encoder, "encoder", "blocks.input.w")[0]
    code_width, num_read = _kernel(decoder, "decoder", "blocks.input.w")[:2]
    if num_codes != num_read:
        raise ValueError(
            f"the encoder has {num_codes} codes, the decoder {num_read}: they are not of one "
            "model, or the two files were given in the wrong order."
        )
    _kernel(encoder, "encoder", "blocks.group_1.block_1.res_path.conv_1.w")
    found = {int(n) for key in encoder for n in re.findall(r"^blocks\.group_1\.block_(\d+)\.", key)}
    return DalleSize(num_codes, code_width, width, max(found))


def _kernel(tensors: Mapping[str, Tensor], part: str, name: str) -> torch.Size:
    """Shape of the weight of a convolution: (outputs, inputs, rows, columns)."""
    if name not in tensors:
        raise ValueError(
            f"the {part} has no tensor {name!r}; its first is {min(tensors, default='none')!r}. "
            "Give the encoder and the decoder of DALL-E's dVAE, in this order, with the names of "
            "the release."
        )
    shape = tensors[name].shape
    if len(shape) != 4:
        raise ValueError(
            f"the {part}'s {name} has the shape {tuple(shape)}, but a convolution's weight has "
            "four sides. Give the tensors as they were released."
        )
    return shape


def build(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> ImageTokenizer:
    """The tokenizer that released tensors are of, with their values.

    The decoder's first convolution is the codebook; its bias, which every mixture of codes adds
    once, is added to every code.

    Raises:
        ValueError: if a tensor is missing, left over or of another shape.
    """
    size = size_of(encoder, decoder)
    with torch.device("meta"):
        tokenizer = ImageTokenizer(
            DalleEncoder(size.num_codes, size.width, size.blocks),
            GumbelQuantizer(size.num_codes, size.code_width, VALUES_PER_POSITION),
            DalleDecoder(6, size.width, size.blocks, size.code_width),
            LogitLaplacePixels(),
        )
    tokenizer.to_empty(device="cpu")
    state = tokenizer_state(encoder, decoder)
    own = tokenizer.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or extra or wrong:
        raise ValueError(
            f"not a dVAE of {GROUPS} groups of {size.blocks} blocks and width {size.width}: "
            f"missing {missing[:3]}, left over {extra[:3]}, of another shape {sorted(wrong)[:3]} "
            f"({len(missing)}, {len(extra)} and {len(wrong)} in all). Give the encoder and the "
            "decoder of one release, whole and unchanged."
        )
    tokenizer.load_state_dict(state)
    return tokenizer.eval()


def tokenizer_state(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> State:
    """Released tensors under the names of an `ImageTokenizer`; evaluated at temperature 1/16."""
    rest = dict(decoder)
    kernel, bias = rest.pop("blocks.input.w"), rest.pop("blocks.input.b")
    return {
        **{f"encoder.{name}": tensor.float() for name, tensor in encoder.items()},
        **{f"decoder.{name}": tensor.float() for name, tensor in rest.items()},
        "quantizer.codebook": (kernel[:, :, 0, 0].T + bias).float().contiguous(),  # (K, D)
        "quantizer.temperature": torch.tensor(1 / 16),
        "quantizer.kl_weight": torch.tensor(6.6),
    }


def _tensors(content: Any, prefix: str, depth: int) -> list[tuple[str, Tensor]]:
    """All parameters and buffers below a record or a state dict, with their dotted names."""
    if isinstance(content, Tensor):
        return [(prefix, content.detach())]
    if depth > DEEPEST:
        return []
    tables = [content]
    if isinstance(content, _Record):
        tables = [vars(content).get(kind) for kind in ("_parameters", "_buffers", "_modules")]
    found: list[tuple[str, Tensor]] = []
    for table in tables:
        for name, part in table.items() if isinstance(table, Mapping) else ():
            found += _tensors(part, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    return found
