"""Datasets and text tokenizers from the experiment file's words: one visible table per `type:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from lit_eve.assemble.addresses import name_or_path
from lit_eve.importing.saved_text import has_saved_text, saved_text
from lit_eve.schema import datasets, language_models
from lit_eve.schema.foundations import Contrastive, TextModel
from lit_eve.schema.models import EncoderFree, EncoderModel
from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.elsewhere import GIGABYTE, local_copy
from lit_eve_data.disk.reading import RecordStore, RecordView
from lit_eve_data.disk.stores import is_remote
from lit_eve_data.encoding.text import ChatText
from lit_eve_data.encoding.vocabulary import bytes_text, pretrained_text, train_text
from lit_eve_data.preparing.prepare import Progress, prepare_scenes

TEXTS = 4_000
"""Samples of each dataset that a text tokenizer is trained on."""

HasText = EncoderFree | EncoderModel | TextModel | Contrastive
"""A model that reads text."""
Options = Any
"""A block of the schema; each function of a table knows its own class."""


def _scenes(options: datasets.Scenes, root: Path, progress: Progress | None) -> Path:
    names = {field.name for field in fields(ScenesOptions)}
    return prepare_scenes(
        ScenesOptions(**{name: getattr(options, name) for name in names}), root, progress
    )


def _litdata(options: datasets.LitDataSet, root: Path, progress: Progress | None) -> Path:
    address = options.path.resolved()
    if not is_remote(address):
        return Path(address)
    return local_copy(address, space=int((options.cache or 50) * GIGABYTE))


DATASETS: Mapping[str, Callable[[Options, Path, Progress | None], Path]] = {
    "scenes": _scenes,
    "litdata": _litdata,
}


def dataset(options: datasets.Dataset, root: Path, progress: Progress | None = None) -> Path:
    """The folder of a prepared dataset; built-in ones are prepared under `root` first."""
    return DATASETS[options.type](options, root, progress)


def view(directories: Mapping[str, Path], name: str, split: str) -> RecordView:
    """The samples that a stage's `data:` names: `dataset` or `dataset.subset`."""
    head, _, subset = name.partition(".")
    store = RecordStore(directories[head], split)
    return store.subset(subset) if subset else store.view


def text(options: HasText, directories: Mapping[str, Path], saved: Path) -> ChatText:
    """The text tokenizer; a trained one is kept in `saved` and read back from there.

    Args:
        options: the model.
        directories: prepared datasets, whose texts a tokenizer is trained on.
        saved: folder of this run's own tokenizer.
    """
    saved.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(saved.parent / ".text.lock"):  # every rank of a launch comes here at once
        if not (saved / "tokenizer.json").is_file():
            _new_text(options, directories).save(saved)
    return ChatText.load(saved)


def num_tokens(options: language_models.Text | None) -> int:
    """Size of the vocabulary of a tokenizer, before the data is there; 0 if a decoder brings it."""
    match options:
        case language_models.TrainedText(vocabulary=size):
            return size
        case language_models.BytesText():
            return bytes_text().num_tokens
        case language_models.SavedText(source=source):
            return saved_text(Path(source.resolved())).num_tokens
        case None:
            return 0


def _new_text(options: HasText, directories: Mapping[str, Path]) -> ChatText:
    match options.text:
        case language_models.TrainedText(vocabulary=size):
            stores = [RecordStore(directories[name]) for name in sorted(directories)]
            return train_text((line for store in stores for line in store.texts(TEXTS)), size)
        case language_models.BytesText():
            return bytes_text()
        case language_models.SavedText(source=source):
            return saved_text(Path(source.resolved()))
        case None:
            assert not isinstance(options, Contrastive)
            assert isinstance(options.language_model, language_models.Pretrained)
            place = name_or_path(options.language_model.source.resolved())
            saved = has_saved_text(Path(place))
            return saved_text(Path(place)) if saved else pretrained_text(place)
