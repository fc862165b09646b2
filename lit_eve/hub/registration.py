"""Tell Transformers' Auto classes about our models, as soon as somebody asks for those.

`import lit_eve` costs nothing, and `AutoModelForImageTextToText.from_pretrained(DIR)` works after
it, whichever of the two packages is imported first. So a finder stands in front of the import
system and knows four names, the modules that hold Transformers' tables: it lets each load as always
and then calls that module's own `register` methods.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import Any

_AUTO = "transformers.models.auto."


def _configurations(auto: Any) -> None:
    from lit_eve.hub.configuration import ImageTokenizerConfig, VisionLanguageConfig

    for config in (VisionLanguageConfig, ImageTokenizerConfig):
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)


def _models(auto: Any) -> None:
    from lit_eve.hub.configuration import ImageTokenizerConfig, VisionLanguageConfig
    from lit_eve.hub.image_tokenizer import LitEveImageTokenizer
    from lit_eve.hub.modeling import LitEveForConditionalGeneration

    reader = LitEveForConditionalGeneration
    auto.AutoModelForImageTextToText.register(VisionLanguageConfig, reader, exist_ok=True)
    auto.AutoModel.register(ImageTokenizerConfig, LitEveImageTokenizer, exist_ok=True)


def _processors(auto: Any) -> None:
    from lit_eve.hub.configuration import VisionLanguageConfig
    from lit_eve.hub.processing import LitEveProcessor

    auto.AutoProcessor.register(VisionLanguageConfig, LitEveProcessor, exist_ok=True)


def _image_processors(auto: Any) -> None:
    from lit_eve.hub.configuration import ImageTokenizerConfig, VisionLanguageConfig
    from lit_eve.hub.image_processing import LitEveImageProcessor, LitEvePixelProcessor

    for config, made in (
        (VisionLanguageConfig, LitEveImageProcessor),
        (ImageTokenizerConfig, LitEvePixelProcessor),
    ):
        # There is one way to cut pictures, whatever Transformers would like to do it with.
        ways = {"pil": made, "torchvision": made}
        auto.AutoImageProcessor.register(config, image_processor_classes=ways, exist_ok=True)


TABLES: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {
        f"{_AUTO}configuration_auto": _configurations,
        f"{_AUTO}modeling_auto": _models,
        f"{_AUTO}processing_auto": _processors,
        f"{_AUTO}image_processing_auto": _image_processors,
    }
)
"""Module of Transformers -> what adds ours to its tables."""


def install() -> None:
    """Register in the modules that are there, and in the others when they come; twice is once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name, register in TABLES.items():
        if name in sys.modules:
            register(sys.modules[name])


class _Finder(MetaPathFinder):
    """Finds what the other finders find, with a loader that registers behind it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        register = TABLES.get(fullname)
        if register is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Registering(spec.loader, register)
                return spec
        return None


class _Registering(Loader):
    """Loads as the loader it stands for, then registers."""

    def __init__(self, loader: Loader, register: Callable[[Any], None]) -> None:
        self.loader = loader
        self.register = register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.register(module)
