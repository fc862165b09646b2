"""Preparing in its own process, and what remains when something is killed in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from lit_eve_data.builtin.scenes import ScenesOptions
from lit_eve_data.disk.manifest import verify
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.preparing import prepare as module
from lit_eve_data.preparing.prepare import prepare_scenes
from lit_eve_data.sources import ScenesSource, fingerprint, source_from

SMALL = ScenesOptions(train=30, val=5, test=0, sides=(32, 48))
ENDLESS = ScenesOptions(train=10**6, val=0, test=0, sides=(32, 48))


def left_in(root: Path) -> list[str]:
    """What lies there, locks aside."""
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


def check_nothing_loads(root: Path) -> None:
    """Only what can be gone on with is left, and it is no dataset."""
    (partial,) = left_in(root)
    assert partial.endswith(".partial")
    with pytest.raises(ValueError, match="preparing was interrupted"):
        RecordStore(root / partial)


def test_scenes_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = fingerprint(ScenesSource(SMALL))
    for interrupted in (f".scenes-{mark}.{mark}.partial", f".scenes-{mark}.other.partial"):
        (tmp_path / interrupted / "train").mkdir(parents=True)
        (tmp_path / interrupted / "train/chunk-0-7.bin").write_bytes(b"of a run that was killed")
    seen: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:  # the second waits for the first and finds its result
        callers = [
            pool.submit(prepare_scenes, SMALL, tmp_path, lambda *numbers: seen.append(numbers))
            for _ in range(2)
        ]
        directory, again = (caller.result() for caller in callers)
    assert directory == again
    assert left_in(tmp_path) == [directory.name]
    assert seen == [(0, 35), (35, 35)]
    assert list(verify(directory).splits) == ["train", "val"]
    assert not (directory / "train/chunk-0-7.bin").exists()
    assert RecordStore(directory, "val")[4].id == "val/4"

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started again"))
    assert prepare_scenes(SMALL, tmp_path) == directory


def test_the_name_depends_on_the_options() -> None:
    names = {fingerprint(ScenesSource(options)) for options in (SMALL, ENDLESS, ScenesOptions())}
    assert len(names) == 3
    same = source_from(ScenesSource(SMALL).description())
    assert fingerprint(same) == fingerprint(ScenesSource(SMALL))


def test_an_unknown_description_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown type of source 'words'"):
        source_from({"type": "words"})
    with pytest.raises(ValueError, match="described by version 0"):
        source_from({**ScenesSource(SMALL).description(), "version": 0})


def writer() -> psutil.Process:
    """The writing process of this one."""
    (child,) = writers()
    return child


def writers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "lit_eve_data.preparing.writing" in child.cmdline()]


def kill_writer() -> None:
    writer().kill()


def kill_one_worker() -> None:
    workers: list[psutil.Process] = []
    while not workers:
        workers = [p for p in writer().children() if "spawn_main" in " ".join(p.cmdline())]
    workers[0].kill()


@pytest.mark.parametrize("kill", [kill_writer, kill_one_worker])
def test_a_killed_process_is_noticed_and_nothing_stays(
    kill: Callable[[], None], tmp_path: Path
) -> None:
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if not killed:
            kill()
            killed.append(done)

    with pytest.raises(RuntimeError, match=r"preparing scenes-\w+ failed .*when you start again"):
        prepare_scenes(ENDLESS, tmp_path, progress)
    assert killed == [0]
    check_nothing_loads(tmp_path)
    assert writers() == []


def test_stopping_the_caller_stops_all_of_it(tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_scenes(ENDLESS, tmp_path, progress)
    check_nothing_loads(tmp_path)
    assert writers() == []


def test_killing_the_caller_stops_all_of_it_and_leaves_nothing_that_loads(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        from lit_eve_data.preparing.prepare import prepare_scenes
        from lit_eve_data.builtin.scenes import ScenesOptions
        options = ScenesOptions(train={ENDLESS.train}, val=0, test=0, sides=(32, 48))
        prepare_scenes(options, Path({str(tmp_path)!r}), lambda *_: print("writing", flush=True))
    """)
    paths = os.pathsep.join(path for path in sys.path if path)
    caller = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert caller.stdout is not None
    for _ in range(3):
        assert caller.stdout.readline() == b"writing\n"
    below = psutil.Process(caller.pid).children(recursive=True)
    assert len(below) >= 2
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    gone, alive = psutil.wait_procs(below, timeout=20)
    assert alive == []
    assert len(gone) == len(below)
    check_nothing_loads(tmp_path)


def test_a_failure_says_what_the_process_said(tmp_path: Path) -> None:
    impossible = ScenesSource(ScenesOptions(digits=(1, 1), kinds={"question/relation": 1.0}))
    with pytest.raises(RuntimeError, match=r"inputs cannot be used .*none of the kinds"):
        module.prepare(impossible, tmp_path / "scenes")
    check_nothing_loads(tmp_path)


def test_something_else_under_the_name_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"holds no MANIFEST\.json"):
        module.prepare(ScenesSource(SMALL), tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "precious"


def test_ranks_of_the_caller_do_not_reach_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "GLOBAL_RANK", "DATA_OPTIMIZER_GLOBAL_RANK"):
        monkeypatch.setenv(name, "3")
    environment = module._environment("scratch")
    assert not {"RANK", "WORLD_SIZE", "GLOBAL_RANK"} & set(environment)
    assert "DATA_OPTIMIZER_GLOBAL_RANK" not in environment
    assert environment["DATA_OPTIMIZER_CACHE_FOLDER"] == environment["TMPDIR"] == "scratch"
