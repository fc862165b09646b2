"""Eleven ways in which LitData 0.2.76 loses data without a word, each closed here.

One test for each, named after the break. Each is red without its guard, named in its docstring.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_eve.tracking.spool import environment_rank
from lit_eve_data.batches import PackedBatch
from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.manifest import NAME
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import PackingPlan
from lit_eve_data.preparing.prepare import prepare_scenes
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from tests.data.shapes import Shapes

ENDLESS = ScenesOptions(train=10**6, val=0, test=0, sides=(32, 48))
Row = tuple[int, ...]


@pytest.fixture(scope="module")
def make(scenes: RecordStore, encoder: SampleEncoder) -> Any:
    """Loaders of a mixture of two subsets, ten steps in an epoch of the loader."""
    names = {"questions": 0.7, "captions": 0.3}
    views = [scenes.subset(name) for name in names]
    sources = [
        encoder.lengths(name, view, weight)
        for (name, weight), view in zip(names.items(), views, strict=True)
    ]
    plan = PackingPlan(sources, tokens_per_row=256, batch=12, seed=7)

    def loader(**changes: Any) -> PackedLoader:
        return PackedLoader(plan, views, encoder, **{"steps": 10, **changes})

    return loader


def rows(batch: PackedBatch) -> list[Row]:
    return [tuple(row) for row in batch.token_ids.tolist()]


def drawn(loader: Iterator[PackedBatch], count: int) -> list[list[Row]]:
    return [rows(batch) for batch in islice(loader, count)]


def test_1_a_worker_killed_by_lack_of_memory_leaves_no_dataset(tmp_path: Path) -> None:
    """LitData: exit status 0 and half of the samples. Guard: a pipe for each worker."""
    with pytest.raises(RuntimeError, match=r"exit status -9.*memory ran out"):
        write_dataset(Shapes(deadly=5), tmp_path, WritingOptions(workers=1))
    with pytest.raises(ValueError, match="was interrupted"):
        RecordStore(tmp_path)


def test_2_an_interrupted_main_process_fails_and_takes_its_workers_along(tmp_path: Path) -> None:
    """LitData: exit status 0, no index, orphans that write on. Guard: the process group."""
    below: list[psutil.Process] = []

    def interrupt(done: int, total: int) -> None:
        if not below:
            (writer,) = (p for p in psutil.Process().children() if "writing" in p.cmdline()[-1])
            while not (workers := writer.children()):
                pass
            below.extend([writer, *workers])
            writer.send_signal(signal.SIGINT)

    with pytest.raises(RuntimeError, match=r"failed \(exit status -?[1-9]"):
        prepare_scenes(ENDLESS, tmp_path, interrupt)
    assert psutil.wait_procs(below, timeout=10)[1] == []
    (partial,) = tmp_path.glob(".*.partial")
    with pytest.raises(ValueError, match="was interrupted"):
        RecordStore(partial)


def test_3_an_index_is_never_made_of_what_workers_left(
    scenes_directory: Path, tmp_path: Path
) -> None:
    """LitData: writes index.json from the ranks' own ones. Guard: manifest and index are needed."""
    copy = Path(shutil.copytree(scenes_directory, tmp_path / "copy"))
    index = copy / "train/index.json"
    content = json.loads(index.read_text())
    content["chunks"] = content["chunks"][:1]
    (copy / "train/0.index.json").write_text(json.dumps(content))
    index.unlink()
    with pytest.raises(ValueError, match=r"index\.json is missing"):
        RecordStore(copy)
    (copy / NAME).unlink()
    with pytest.raises(ValueError, match="was interrupted"):
        RecordStore(copy)
    assert not index.exists()


def test_4_the_first_sample_does_not_fix_the_shape_of_the_others(tmp_path: Path) -> None:
    """LitData: longer lists are cut to the first one's length. Guard: one blob for each sample."""
    write_dataset(Shapes(), tmp_path, WritingOptions(workers=0))
    store = RecordStore(tmp_path)
    assert [store[n] for n in range(24)] == [Shapes().sample(n) for n in range(24)]


class Blobs(torch.utils.data.Dataset[bytes]):
    """What a store reads, as it reads it."""

    def __init__(self, store: RecordStore) -> None:
        self.store = store

    def __getitem__(self, index: int) -> Any:
        return self.store.read(index), self.store[index].images[0].data


def test_5_what_is_read_can_cross_to_another_process(scenes: RecordStore) -> None:
    """LitData: a memoryview that crosses hangs the loader. Guard: `bytes(...)` when reading."""
    loader = DataLoader(Blobs(scenes), batch_size=None, sampler=[0, 7], num_workers=1, timeout=20)
    assert [blob for blob, _ in loader] == [scenes.read(0), scenes.read(7)]
    assert {type(part) for part in Blobs(scenes)[3]} == {bytes}


def test_6_the_epoch_after_a_resumed_one_is_whole(make: Any) -> None:
    """LitData: it is short, as Lightning never exhausts a loader. Guard: epochs end at the next."""
    whole = drawn(iter(make(steps=30)), 30)
    first = make()
    drawn(iter(first), 4)
    second = make()  # of ten steps an epoch, counted out as Lightning does, never exhausted
    second.load_state_dict(first.state_dict())
    assert drawn(iter(second), 6) == whole[4:10]
    assert drawn(iter(second), 10) == whole[10:20]
    assert drawn(iter(second), 10) == whole[20:]


class Watcher(LightningModule):
    """Notes at which step the loader says it stands while a batch is worked on."""

    def __init__(self, loader: PackedLoader) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.loader, self.seen = loader, list[int]()

    def training_step(self, batch: PackedBatch, batch_idx: int) -> Tensor:
        self.seen.append(self.loader.state_dict()["step"])
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_7_lightning_takes_no_batch_ahead_of_the_state(make: Any) -> None:
    """Lightning: of a loader without length it takes one ahead. Guard: `__len__`."""
    task = Watcher(make())
    Trainer(
        max_steps=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(task, task.loader)
    assert task.seen == [1, 2, 3]


def test_8_a_mixture_read_by_workers_resumes_exactly(make: Any) -> None:
    """LitData's combined dataset: lost, repeated, reordered. Guard: one plan, made once."""
    whole = drawn(iter(make()), 9)
    first = make(workers=2)
    seen = drawn(iter(first), 4)
    second = make(workers=2)
    second.load_state_dict(first.state_dict())
    assert seen + drawn(iter(second), 5) == whole


def test_9_workers_and_processes_may_change_at_every_resume(make: Any) -> None:
    """LitData: wrong at the second resume. Guard: the state knows of neither."""
    whole = [Counter(step) for step in drawn(iter(make()), 9)]
    state, seen = make().state_dict(), list[Counter[Row]]()
    for world, workers in ((1, 2), (2, 0), (1, 1)):
        ranks = [make(share=Share(rank, world), workers=workers) for rank in range(world)]
        for loader in ranks:
            loader.load_state_dict(state)
        parts = [drawn(iter(loader), 3) for loader in ranks]
        seen += [Counter(row for rank in step for row in rank) for step in zip(*parts, strict=True)]
        state = json.loads(json.dumps(ranks[0].state_dict()))
        assert all(loader.state_dict() == state for loader in ranks)
    assert seen == whole


def test_10_an_index_cannot_name_what_runs_code(scenes_directory: Path, tmp_path: Path) -> None:
    """LitData: reads by the serializer that the index names. Guard: only `bytes` is on the list."""
    copy = Path(shutil.copytree(scenes_directory, tmp_path / "copy"))
    store = RecordStore(copy)  # checked once, changed afterwards
    index = copy / "train/index.json"
    content = json.loads(index.read_text())
    content["config"]["data_format"] = ["pickle"]
    index.write_text(json.dumps(content))
    with pytest.raises(RuntimeError, match="refusing to unpickle"):
        store.read(0)
    with pytest.raises(ValueError, match=r"has \d+ bytes instead of"):
        RecordStore(copy)


def test_11_a_dataset_opened_before_the_processes_meet_is_whole(
    make: Any, scenes: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LitData: takes the rank as it is made. Guard: `Share`, and by index."""
    expected = scenes.read(299)
    step = drawn(iter(make()), 1)[0]
    parts: list[Row] = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        store = RecordStore(scenes.directory)
        assert len(store) == 300
        assert store.read(299) == expected
        parts += drawn(iter(make(share=Share(environment_rank(), 2))), 1)[0]
    assert Counter(parts) == Counter(step)
