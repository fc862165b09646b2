"""Datasets at a URL: published whole, read chunk by chunk in limited space, checked on arrival."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk import elsewhere
from lit_eve_data.disk.elsewhere import local_copy, verify_at
from lit_eve_data.disk.manifest import NAME, read_manifest
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.stores import open_store
from lit_eve_data.loading.loader import PackedLoader
from lit_eve_data.loading.working import Share
from lit_eve_data.packing.lengths import SampleEncoder
from lit_eve_data.packing.plan import PackingPlan
from lit_eve_data.preparing.prepare import Preparing
from lit_eve_data.preparing.publishing import publish, stage
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import FileOptions, ScenesSource, source_at

HERE = Preparing(workers=0)
pytestmark = pytest.mark.usefixtures("prepared_in_this_process")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket of a server on this machine."""
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="lab")
    yield "s3://lab/pictures"
    server.stop()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIT_EVE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def address(scenes_directory: Path) -> str:
    return f"file://{scenes_directory}"


def folder(path: Path, numbers: range) -> Path:
    path.mkdir()
    for number in numbers:
        Image.fromarray(np.full((20, 20, 3), number, np.uint8)).save(path / f"{number}.png")
    return path


def ids(store: RecordStore) -> list[str]:
    return sorted(store[n].id for n in range(len(store)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_dataset_is_published_appended_to_and_read_in_a_bucket(
    bucket: str, tmp_path: Path, cache: Path
) -> None:
    options = FileOptions(held_out=0.0)
    first = source_at(folder(tmp_path / "a", range(4)), options)
    second = source_at(folder(tmp_path / "b", range(4, 7)), options)
    with pytest.raises(ValueError, match="leave out --append"):
        publish(first, bucket, options=Preparing(append=True))
    publish(first, bucket, options=HERE)
    with pytest.raises(ValueError, match=r"made of something else.*--append"):
        publish(second, bucket, options=HERE)
    publish(second, bucket, options=Preparing(workers=0, append=True))
    both = RecordStore(local_copy(bucket))
    assert ids(both) == [f"{n}.png" for n in range(7)]
    assert len(both.manifest.parts) == 2
    assert {path.suffix for path in (cache / "staged").iterdir()} == {".lock"}


def test_chunks_come_when_they_are_read_and_go_when_space_is_short(
    address: str, scenes: RecordStore
) -> None:
    copy = local_copy(address, space=900_000)
    assert not list(copy.rglob("*.bin"))
    store = RecordStore(copy)
    order = np.random.default_rng(0).permutation(300)[:60].tolist()
    for index in order:
        assert store.read(index) == scenes.read(index)
        here = [path.stat().st_size for path in copy.rglob("*.bin")]
        assert 0 < sum(here) <= 900_000
    assert pickle.loads(pickle.dumps(store))[5] == scenes[5]


def test_a_chunk_that_is_not_the_prepared_one_is_refused(
    scenes_directory: Path, tmp_path: Path
) -> None:
    there = Path(shutil.copytree(scenes_directory, tmp_path / "there"))
    store = RecordStore(local_copy(f"file://{there}"))
    chunk = there / "train/chunk-0-0.bin"
    content = bytearray(chunk.read_bytes())
    content[-10] ^= 4
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"train/chunk-0-0\.bin.*sha256 differs"):
        store.read(0)
    with pytest.raises(ValueError, match="sha256 differs"):
        verify_at(f"file://{there}")


def test_what_is_there_already_is_not_published_again(tmp_path: Path) -> None:
    source = source_at(folder(tmp_path / "a", range(4)), FileOptions(held_out=0.0))
    address = f"file://{tmp_path}/there"
    with pytest.raises(ValueError, match=r"holds no MANIFEST\.json"):
        local_copy(address)
    publish(source, address, options=HERE)
    assert stage(source, address, options=HERE) is None
    assert verify_at(address).splits["train"].samples == 4


def test_another_manifest_is_another_copy(address: str, tmp_path: Path) -> None:
    one = local_copy(address)
    assert local_copy(address) == one
    there = Path(shutil.copytree(address.removeprefix("file://"), tmp_path / "there"))
    (there / NAME).write_text((there / NAME).read_text().replace('"seed": 0', '"seed": 1'))
    assert local_copy(f"file://{there}") != one


def test_workers_share_one_copy_and_see_the_same_stream(
    address: str, scenes: RecordStore, encoder: SampleEncoder
) -> None:
    far = RecordStore(local_copy(address, space=1_000_000))
    plan = PackingPlan([encoder.lengths("scenes", scenes.view, 1.0)], 256, 24, 0)
    near = islice(PackedLoader(plan, [scenes.view], encoder, steps=6), 6)
    loader = PackedLoader(plan, [far.view], encoder, steps=6, workers=2)
    for one, other in zip(near, loader, strict=True):
        assert one.token_ids.equal(other.token_ids)
        assert one.images.patches.equal(other.images.patches)


def test_two_machines_fetch_each_its_own_chunks(
    tmp_path: Path, encoder: SampleEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("plan.WINDOW", 24), ("orders.WINDOW", 24), ("plan._LANE", 48)):
        monkeypatch.setattr(f"lit_eve_data.packing.{name}", value)
    source = ScenesSource(ScenesOptions(train=240, val=0, test=0, sides=(32, 48)))
    write_dataset(source, tmp_path / "there", WritingOptions(0, chunk_bytes=40_000))
    near = RecordStore(tmp_path / "there").view
    plan = PackingPlan([encoder.lengths("scenes", near, 1.0)], 256, 24, 0)
    chunks = []
    for machine in (0, 1):
        copy = local_copy(f"file://{tmp_path}/there", tmp_path / f"machine-{machine}")
        store = RecordStore(copy)
        for rows, _ in islice(plan.steps(plan.start), round(240 / plan.samples_per_step)):
            for index in (n for row in Share(machine, 2).of(rows)[0] for _, n in row):
                assert store.read(index)
        chunks.append({path.name for path in copy.rglob("*.bin")})
    total = len(list((tmp_path / "there").rglob("*.bin")))
    assert plan.lanes >= 2
    assert total > 20
    assert len(chunks[0] | chunks[1]) == total
    assert len(chunks[0] & chunks[1]) <= 1  # the one that is cut to make shares equal


def test_what_was_copied_before_an_interruption_is_not_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_at(folder(tmp_path / "a", range(4)), FileOptions(held_out=0.0))
    address = f"file://{tmp_path}/there"
    put = type(open_store(address)).put
    copied: list[str] = []

    def failing(self: object, file: Path, name: str) -> None:
        if len(copied) == 1:
            copied.append("no network")
            raise OSError("no network")
        copied.append(name)
        put(self, file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(type(open_store(address)), "put", failing)
    with pytest.raises(OSError, match="no network"):
        publish(source, address, options=HERE)
    with pytest.raises(ValueError, match="upload was interrupted"):
        local_copy(address)
    publish(source, address, options=HERE)
    assert len(set(copied)) == len(copied) == 5  # three files, the manifest, one failure
    assert copied[-1] == NAME


def test_an_address_nobody_can_reach_names_those_that_can() -> None:
    with pytest.raises(ValueError, match=r"fsspec needs a package.*s3://"):
        open_store("nowhere://x/y")
    with pytest.raises(ValueError, match="is no URL"):
        open_store("/some/folder")


def test_what_is_ahead_is_fetched_in_the_background(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = local_copy(address)
    store = RecordStore(copy)
    store.fetch_ahead(range(120))
    source = store._source
    assert source is not None
    for job in source._ahead.values():
        job.result(10)
    here = {path.name for path in copy.rglob("*.bin")}
    last = int(store.sidecar.chunk[119])
    assert here == {f"chunk-0-{n}.bin" for n in range(last + 1)}
    monkeypatch.setattr(elsewhere, "open_store", lambda _: pytest.fail("fetched again"))
    assert store.read(0)
    assert json.loads((copy / "ELSEWHERE.json").read_text())["address"] == address
    assert os.environ["LIT_EVE_CACHE"] in str(read_manifest(copy) and copy)
