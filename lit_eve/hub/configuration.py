"""What a folder with an exported model says about it, in Transformers' `config.json`."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

FORMAT = 1
"""Raised when an exported folder can no longer be read by older programs."""


class VisionLanguageConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """A vision-language model as an experiment declared it.

    Args:
        experiment: the experiment's `model:` block, as plain keys and values, without what only
            training needs. Something pretrained comes `from` a key of `shapes`.
        num_tokens: size of the vocabulary that the model was made for.
        image_token_id: stands in `input_ids` where a visual token goes; it is never looked up.
        pad_token_id: what stood in those places and in padding while the model learned.
        eos_token_id: ends an answer.
        text_config: the decoder's own settings.
        shapes: settings of everything that was pretrained, so that a folder is whole: nothing is
            looked up elsewhere.
        export_format: see `FORMAT`.

    Raises:
        ValueError: if the folder was written by a newer lit-eve.
    """

    model_type = "lit_eve"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    def __init__(
        self,
        experiment: dict[str, Any] | None = None,
        num_tokens: int = 0,
        image_token_id: int = 1,
        pad_token_id: int = 0,
        eos_token_id: int | None = None,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        shapes: dict[str, dict[str, Any]] | None = None,
        export_format: int = FORMAT,
        **options: Any,
    ) -> None:
        refuse_newer(export_format)
        self.experiment = experiment or {}
        self.num_tokens = num_tokens
        self.image_token_id = image_token_id
        self.pad_token_id = pad_token_id
        self.eos_token_id = eos_token_id
        self.text_config = restored(text_config or {"model_type": "llama"})
        self.shapes = shapes or {}
        self.export_format = export_format
        tied = bool(getattr(self.text_config, "tie_word_embeddings", False))
        super().__init__(**(options | {"tie_word_embeddings": tied}))


class ImageTokenizerConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """An image tokenizer as an experiment declared it.

    Args:
        experiment: the experiment's `model:` block, as plain keys and values, without what only
            training needs.
        export_format: see `FORMAT`.

    Raises:
        ValueError: if the folder was written by a newer lit-eve.
    """

    model_type = "lit_eve_image_tokenizer"

    def __init__(
        self, experiment: dict[str, Any] | None = None, export_format: int = FORMAT, **options: Any
    ) -> None:
        refuse_newer(export_format)
        self.experiment = experiment or {}
        self.export_format = export_format
        super().__init__(**options)


def refuse_newer(number: int) -> None:
    """Raise ValueError unless this program knows the format."""
    if number > FORMAT:
        raise ValueError(
            f"this model was exported in format {number} and this lit-eve reads up to {FORMAT}: "
            "it would be read wrong. Install the lit-eve that its model card names."
        )


def restored(config: dict[str, Any] | PretrainedConfig) -> PretrainedConfig:
    """A configuration of Transformers' own from its plain form."""
    if isinstance(config, PretrainedConfig):
        return config
    return CONFIG_MAPPING[config["model_type"]].from_dict(config)
