"""From an exported folder's settings to the model inside."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from transformers import PretrainedConfig

from lit_eve import assemble
from lit_eve.hub.configuration import ImageTokenizerConfig, VisionLanguageConfig, restored
from lit_eve.models.tokenizers.image_tokenizer import ImageTokenizer
from lit_eve.models.tokenizers.quantizer import Quantizer
from lit_eve.models.vision_language import VisionLanguageModel
from lit_eve.schema.models import VisionLanguage
from lit_eve.schema.tokenizers import ImageTokenizer as ImageTokenizerOptions

_VISION_LANGUAGE: TypeAdapter[VisionLanguage] = TypeAdapter(VisionLanguage)


def options_of(config: VisionLanguageConfig) -> VisionLanguage:
    """The `model:` block of an exported folder."""
    return _VISION_LANGUAGE.validate_python(config.experiment, by_alias=True)


def build(config: VisionLanguageConfig) -> VisionLanguageModel:
    """The model of an exported folder, with random weights."""
    shapes: dict[str, PretrainedConfig] = {k: restored(v) for k, v in config.shapes.items()}
    options = options_of(config)
    return assemble.vision_language(options, config.num_tokens, weights=False, shapes=shapes)


def tokenizer_options_of(config: ImageTokenizerConfig) -> ImageTokenizerOptions:
    """The `model:` block of an exported folder."""
    return ImageTokenizerOptions.model_validate(config.experiment, by_alias=True)


def build_image_tokenizer(config: ImageTokenizerConfig) -> ImageTokenizer:
    """The image tokenizer of an exported folder, with random weights."""
    from lit_eve.assemble.tokenizers import build_tokenizer

    return build_tokenizer(tokenizer_options_of(config))


def fresh_quantizer(config: ImageTokenizerConfig) -> Quantizer:
    """The quantizer of an exported folder, for the constants that no file of weights holds."""
    from lit_eve.assemble.tokenizers import build_quantizer

    return build_quantizer(tokenizer_options_of(config))


def plain(options: Any) -> dict[str, Any]:
    """A block of an experiment as the file has it."""
    written: dict[str, Any] = options.model_dump(by_alias=True)
    return written
