"""Kills a preparation with -9 at random moments, starts it again, and compares what comes of it.

    python -m benchmarks.kill_prepare --rounds 20

Each round prepares the same pictures and questions, and kills, in turn: the process that called,
the one that writes, one worker, the whole group. Survived means: after the last start the dataset
is verified, and holds every sample once, with the bytes of one that was never disturbed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from lit_eve_data.disk.manifest import NAME, verify
from lit_eve_data.disk.reading import RecordStore

SAMPLES = 1200
CALLER = """
import sys
from pathlib import Path
from lit_eve_data.preparing.prepare import Preparing, prepare
from lit_eve_data.sources import FileOptions, source_at
source = source_at(Path(sys.argv[1]), FileOptions(held_out=0.1))
prepare(source, Path(sys.argv[2]), options=Preparing(workers=2, chunk_bytes=1_000_000))
"""


def made(folder: Path) -> Path:
    """Pictures of noise with a question each; one of a hundred is not there."""
    entries = []
    for number in range(SAMPLES):
        content = io.BytesIO()
        pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(pixels).save(content, "PNG")
        (folder / f"{number}.png").write_bytes(content.getvalue())
        talk = [
            {"from": "human", "value": f"<image>\n{number}?"},
            {"from": "gpt", "value": str(number)},
        ]
        entries.append({"id": number, "image": f"{number}.png", "conversations": talk})
    (folder / "talk.json").write_text(json.dumps(entries))
    return folder / "talk.json"


def start(source: Path, to: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CALLER, str(source), str(to)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)


def killed(caller: subprocess.Popen[bytes], whom: str, after: float) -> str:
    """Wait, kill, and wait until all of it is gone; what was hit, or that it was too late."""
    deadline = time.monotonic() + after
    while time.monotonic() < deadline:
        if caller.poll() is not None:
            return "too late"
        time.sleep(0.02)
    below = psutil.Process(caller.pid).children(recursive=True)
    writers = [p for p in below if "lit_eve_data.preparing.writing" in " ".join(p.cmdline())]
    workers = [p for p in below if "spawn_main" in " ".join(p.cmdline())]
    hit = whom
    if whom == "writer" and writers:
        writers[0].kill()
    elif whom == "worker" and workers:
        random.choice(workers).kill()
    elif whom == "group" and writers:
        os.killpg(writers[0].pid, signal.SIGKILL)
        caller.kill()
    else:
        hit = "caller"
        caller.kill()
    caller.wait()
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == [], f"orphans: {alive}"
    return hit


def content(directory: Path) -> dict[str, list[bytes]]:
    """Every blob of every split in order; verified first."""
    splits = verify(directory).splits
    stores = {name: RecordStore(directory, name) for name in splits}
    return {name: [store.read(n) for n in range(len(store))] for name, store in stores.items()}


def one_round(
    source: Path, to: Path, expected: dict[str, list[bytes]], whom: str, seconds: float
) -> list[str]:
    """Kill up to three times within what a start takes, then let it end; what was hit."""
    hits = []
    for _ in range(random.randint(1, 3)):
        hits.append(killed(start(source, to), whom, random.uniform(0.15, 0.95) * seconds))
        assert hits[-1] == "too late" or not (to / NAME).exists() or content(to) == expected
    last = start(source, to)
    said = last.communicate()[1]
    assert last.returncode == 0, said.decode()
    assert content(to) == expected
    left = {p.name for p in to.parent.iterdir() if p.suffix != ".lock"}
    assert left == {to.name}, left
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "in").mkdir()
        source = made(root / "in")
        began = time.monotonic()
        assert start(source, root / "straight/out").wait() == 0
        seconds = time.monotonic() - began
        print(f"undisturbed: {seconds:.1f} s")
        expected = content(root / "straight/out")
        blobs = [blob for split in expected.values() for blob in split]
        assert len(set(blobs)) == len(blobs) == SAMPLES
        for number in range(arguments.rounds):
            whom = ("caller", "writer", "worker", "group")[number % 4]
            hits = one_round(source, root / f"{number}/out", expected, whom, seconds)
            print(f"{number + 1:>3}  {', '.join(hits)}: complete, unique, verified", flush=True)


if __name__ == "__main__":
    main()
