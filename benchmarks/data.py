"""What reading data costs, beside Pillow, WebDataset and Hugging Face datasets in the same run.

    uv run --with datasets python -m benchmarks.data --images 1000

One process, one thread, medians; CPU seconds are what to trust where others use the machine too.
`webdataset` and `datasets` take part if they are installed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import StoredImage
from lit_eve_data.encoding.images import LongestEdge, resize
from lit_eve_data.packing.plan import PackingPlan, SourceLengths
from lit_eve_data.preparing.writing import WritingOptions, write_dataset
from lit_eve_data.sources import FileOptions, source_at

EDGE, CELL = 672, 28
POLICY = LongestEdge(EDGE)


def photo(number: int) -> bytes:
    """About 100 KB of JPEG: blurred noise with some grain, 0.8 megapixels, mixed shapes."""
    random = np.random.default_rng(number)
    ratio = float(np.exp(random.normal(0, 0.35)))
    width = int(np.clip(900 * ratio**0.5, 400, 1800))
    height = int(np.clip(900 / ratio**0.5, 400, 1800))
    rough = random.integers(0, 256, (height // 24, width // 24, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))
    grain = random.normal(0, 3.5, (height, width, 1))
    file = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return file.getvalue()


def fitted(pixels: Any, by: Any = "torch") -> Any:
    height, width = pixels.shape[:2]
    return resize(pixels, *POLICY.target(height, width, CELL), by)


def ours(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:  # a record knows the size
        width, height = image.size
    return fitted(StoredImage(height, width, "jpeg", data).pixels())


def by_pillow(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        rows, columns = POLICY.target(image.height, image.width, CELL)
        return np.asarray(image.convert("RGB").resize((columns, rows), Image.Resampling.BICUBIC))


def measured(
    runs: dict[str, Callable[[], int]], repeats: int
) -> dict[str, tuple[float, float, int]]:
    """Median wall and CPU seconds and the count of each, in turns."""
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = run()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu, count))
    return {
        name: (median(w for w, _, _ in t), median(c for _, c, _ in t), t[0][2])
        for name, t in taken.items()
    }


def table(title: str, results: dict[str, tuple[float, float, int]], first: str) -> None:
    print(f"\n{title}")
    base = results[first][1] / results[first][2]
    for name, (wall, cpu, count) in results.items():
        print(
            f"  {name:<34} {count / cpu:>8.1f} / CPU s {count / wall:>8.1f} / s "
            f"{base / (cpu / count):>6.2f} x {first}"
        )


def decoding(files: list[bytes], repeats: int) -> None:
    some = files[:200]

    def every(decode: Callable[[bytes], Any]) -> Callable[[], int]:
        return lambda: len([decode(data) for data in some])

    runs = {
        "Pillow": every(by_pillow),
        "simplejpeg, Pillow's bicubic": every(lambda data: fitted(_jpeg(data), "pillow")),
        "simplejpeg, torch's bicubic": every(lambda data: fitted(_jpeg(data))),
    }
    table(f"decode and resize to {EDGE}, {len(some)} JPEGs", measured(runs, repeats), "Pillow")


def _jpeg(data: bytes) -> Any:
    import simplejpeg  # type: ignore[import-untyped]

    return simplejpeg.decode_jpeg(data, "RGB")


def has_datasets() -> bool:
    """Whether Hugging Face's package is there; a folder `datasets/` of prepared data is not it."""
    found = find_spec("datasets")
    return found is not None and found.origin is not None


def loading(root: Path, files: list[bytes], repeats: int) -> None:
    """Reading, decoding and resizing everything once, in the order each of them shuffles to."""
    store = RecordStore(root / "ours")
    order = epoch(store)
    runs: dict[str, Callable[[], int]] = {
        "bare": lambda: len([fitted(_jpeg(data)) for data in files]),
        "lit-eve": lambda: len([fitted(store[n].images[0].pixels()) for n in order]),
    }
    if find_spec("webdataset"):
        runs["WebDataset"] = lambda: len([fitted(_jpeg(s["jpg"])) for s in tars(root)])
    if has_datasets():
        load = import_module("datasets").load_dataset
        files_of = {"data_files": str(root / "a.parquet"), "cache_dir": str(root / "hf")}
        rows = load("parquet", **files_of)["train"].shuffle(0)
        runs["datasets"] = lambda: len([fitted(_jpeg(row["image"])) for row in rows])
    table(f"read, decode and resize {len(files)} JPEGs", measured(runs, repeats), "bare")


def epoch(store: RecordStore) -> list[int]:
    """The order of a training's first epoch."""
    count = len(store)
    lengths = np.full(count, 577)
    ones = np.ones(count, np.int64)
    source = SourceLengths("a", 1.0, lengths, ones, ones, store.sidecar.chunk)
    plan = PackingPlan([source], 8 * 577, 64, 0)
    order: list[int] = []
    for rows, _ in plan.steps(plan.start):
        order += [index for pack in rows for _, index in pack]
        if len(order) >= count:
            return order[:count]
    raise AssertionError("a plan never ends")


def tars(root: Path) -> Iterator[Any]:
    import webdataset

    shards = sorted(str(path) for path in (root / "tars").glob("*.tar"))
    return iter(webdataset.WebDataset(shards, shardshuffle=False).shuffle(1000))


def padding(files: list[bytes]) -> None:
    """Empty slots of long rows, of short ones for a CPU, and of padded batches of eight."""
    random = np.random.default_rng(0)
    grids = []
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            rows, columns = POLICY.target(image.height, image.width, CELL)
        grids.append(rows // CELL * (columns // CELL + 1) + 1)
    words = np.exp(random.normal(4.2, 0.8, 20_000)).clip(8, 600).astype(np.int64)
    lengths = random.choice(np.array(grids), 20_000) + words
    mean = int(lengths.mean())
    ones = np.ones(len(lengths), np.int64)
    chunk = np.arange(len(lengths)) // 600
    source = SourceLengths("a", 1.0, lengths, ones, ones, chunk)
    print(f"\nempty slots, 20,000 samples of {mean} tokens on average (longest {lengths.max()})")
    for times in (8, 4, 3):
        plan = PackingPlan([source], times * mean, 64, 0)
        print(f"  rows of {times} x the mean              {_waste(plan):>6.2%}")
    batches = lengths[: len(lengths) // 8 * 8].reshape(-1, 8)
    padded = 1 - batches.sum() / (8 * batches.max(1).sum())
    print(f"  batches of 8, padded to the longest {padded:.2%}")


def _waste(plan: PackingPlan) -> float:
    used = slots = 0
    for number, (rows, _) in enumerate(plan.steps(plan.start)):
        used += sum(int(plan.sources[s].tokens[n]) for pack in rows for s, n in pack)
        slots += plan.tokens_per_row * len(rows)
        if number * plan.samples_per_step > 20_000:
            break
    return 1 - used / slots


def planning() -> None:
    count = 1_000_000
    random = np.random.default_rng(0)
    lengths = random.integers(300, 900, count)
    ones = np.ones(count, np.int64)
    source = SourceLengths("a", 1.0, lengths, ones, ones, chunk=np.arange(count) // 640)

    def whole() -> int:
        plan, samples = PackingPlan([source], 4096, 512, 0), 0
        for rows, _ in plan.steps(plan.start):
            samples += sum(map(len, rows))
            if samples >= count:
                return samples
        return 0

    cpu = time.process_time()
    whole()
    cpu = time.process_time() - cpu
    tracemalloc.start()
    whole()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"\nplanning an epoch of a million samples: {cpu:.2f} CPU s, {peak / 1e6:.1f} MB")


def preparing(root: Path, files: list[bytes], repeats: int) -> None:
    """From a JSON with pictures beside it: validated and verified here, only copied there."""
    source, count = root / "in/talk.json", len(files)
    rounds = iter(range(10**6))

    def here(decode: bool = True) -> int:
        found = source_at(source, FileOptions(held_out=0.0, decode=decode))
        write_dataset(found, root / f"out-{next(rounds)}", WritingOptions(0))
        return count

    runs: dict[str, Callable[[], int]] = {}
    if find_spec("webdataset"):
        runs["WebDataset's writer"] = lambda: write_tars(root, root / f"tars-{next(rounds)}")
    runs["lit-eve prepare"] = here
    runs["lit-eve prepare --no-decode"] = lambda: here(decode=False)
    table(f"prepare {count} samples, verified", measured(runs, repeats), next(iter(runs)))


def write_tars(root: Path, to: Path) -> int:
    import webdataset

    to.mkdir()
    entries = json.loads((root / "in/talk.json").read_text())
    with webdataset.ShardWriter(f"{to}/%05d.tar", maxsize=64e6, verbose=0) as writer:
        for entry in entries:
            data = (root / "in" / entry["image"]).read_bytes()
            about = {"conversations": entry["conversations"]}
            writer.write({"__key__": str(entry["id"]), "jpg": data, "json": about})
    return len(entries)


def write_all(root: Path, files: list[bytes]) -> None:
    """The same pictures as a JSON, as tars, as Parquet, and prepared."""
    (root / "in").mkdir()
    entries = []
    for number, data in enumerate(files):
        (root / f"in/{number}.jpg").write_bytes(data)
        talk = [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": f"Picture {number}."},
        ]
        entries.append({"id": number, "image": f"{number}.jpg", "conversations": talk})
    (root / "in/talk.json").write_text(json.dumps(entries))
    source = source_at(root / "in/talk.json", FileOptions(held_out=0.0))
    write_dataset(source, root / "ours", WritingOptions(0, chunk_bytes=16_000_000))
    if find_spec("webdataset"):
        write_tars(root, root / "tars")
    if has_datasets():
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"image": files}), root / "a.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    files = [photo(number) for number in range(arguments.images)]
    sizes = [len(data) / 1000 for data in files]
    print(f"{len(files)} JPEGs, {np.mean(sizes):.1f} KB on average")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_all(root, files)
        decoding(files, arguments.repeats)
        loading(root, files, arguments.repeats)
        padding(files)
        planning()
        preparing(root, files, arguments.repeats)


if __name__ == "__main__":
    main()
