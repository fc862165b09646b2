"""One small prepared dataset for all tests of this room, and what reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lit_eve_data.batches import ImageLayout
from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.encoding.images import ImageCutter, Native
from lit_eve_data.encoding.vocabulary import train_text
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.preparing import prepare
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import ScenesSource, source_from

SMALL = ScenesOptions(train=300, val=60, test=20, sides=(32, 64))


@pytest.fixture(scope="session")
def scenes_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared scenes in chunks of about 50 samples."""
    directory = tmp_path_factory.mktemp("scenes")
    write_dataset(ScenesSource(SMALL), directory, WritingOptions(workers=0, chunk_bytes=400_000))
    return directory


@pytest.fixture(scope="session")
def scenes(scenes_directory: Path) -> RecordStore:
    return RecordStore(scenes_directory)


@pytest.fixture(scope="session")
def encoder(scenes: RecordStore) -> SampleEncoder:
    """EVE's layout at 16 pixels a token."""
    layout = ImageLayout(patch=8, pool=2, cls=True, row_end=True)
    cutter = ImageCutter(layout, Native(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return SampleEncoder(train_text(scenes.texts(300), 320), cutter)


@pytest.fixture
def prepared_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` writes here: a process of its own would only take its time."""

    def run(order: dict[str, Any], progress: object) -> None:
        partial = Path(order["partial"])
        options = WritingOptions(**{**order["options"], "workers": 0})
        write_dataset(source_from(order["source"]), partial, options)
        partial.rename(order["final"])

    monkeypatch.setattr(prepare, "_run", run)
