from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from lit_eve.tracking.spool import Spool, read_events

METRICS = {f"train/metric_{number}": number / 7 for number in range(10)}


def steps(spool: Spool, key: str = "train/loss") -> list[int]:
    events = [event for event, _ in read_events(spool.path)]
    return [event["s"] for event in events if event["k"] == "metrics" and key in event["v"]]


def kinds(spool: Spool) -> list[str]:
    return [event["k"] for event, _ in read_events(spool.path)]


def test_importing_the_spool_imports_no_heavy_library() -> None:
    program = (
        "import sys; import lit_eve.tracking.spool; "
        "print({'torch', 'lightning', 'mlflow', 'numpy', 'PIL'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout.strip() == "set()"


def test_a_call_costs_a_small_part_of_a_training_step(tmp_path: Path) -> None:
    # Measured 8 us at the median on an idle core; a 50 ms step may lose 0.5 %, which is 250 us.
    spool = Spool(tmp_path)
    times = []
    for step in range(500):
        start = time.perf_counter()
        spool.metrics(METRICS, step)
        times.append(time.perf_counter() - start)
    assert sorted(times)[250] < 250e-6


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    before = int(time.time() * 1000)
    spool.metrics({"train/loss": 0.5, "val/nothing": float("nan")}, 3)
    event = [event for event, _ in read_events(spool.path)][-1]
    assert (event["k"], event["s"], event["v"]["train/loss"]) == ("metrics", 3, 0.5)
    assert event["v"]["val/nothing"] != event["v"]["val/nothing"]
    assert before <= event["t"] <= before + 10_000


def test_scalars_of_numpy_become_numbers(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    spool = Spool(tmp_path)
    spool.metrics({"a": np.float32(0.5), "b": np.int64(3)}, 0)
    assert [event for event, _ in read_events(spool.path)][-1]["v"] == {"a": 0.5, "b": 3}


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.metrics({"a": 1.0}, 0)
    *_, (_, offset) = read_events(spool.path)
    spool.metrics({"a": 2.0}, 1)
    assert [event["s"] for event, _ in read_events(spool.path, offset)] == [1]


def test_a_line_without_its_newline_is_not_there_yet(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.metrics({"train/loss": 1.0}, 0)
    with spool.path.open("a") as file:
        file.write('{"k":"metrics","s":1,"v":{"train/loss"')
    assert steps(spool) == [0]


def test_a_torn_last_line_is_cut_off_when_a_run_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for step in range(3):
        spool.metrics({"train/loss": 1.0}, step)
    text = spool.path.read_bytes()
    spool.path.write_bytes(text[:-7])  # the process died inside its last write
    resumed = Spool(tmp_path)
    resumed.metrics({"train/loss": 1.0}, 2)
    assert steps(resumed) == [0, 1, 2]
    assert all(json.loads(line) for line in resumed.path.read_text().splitlines())


def test_a_file_that_is_one_torn_line_starts_again(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"k":"op' + "x" * 9000)
    spool = Spool(tmp_path)
    assert kinds(spool) == ["open"]


def test_a_line_that_is_no_json_is_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with spool.path.open("a") as file:
        file.write('{"k":"metr\n[1]\n')
    spool.metrics({"train/loss": 1.0}, 0)
    assert steps(spool) == [0]


def test_steps_repeated_after_a_resume_are_written_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for step in range(0, 101, 10):
        spool.metrics({"train/loss": 1.0}, step)
    resumed = Spool(tmp_path)  # its checkpoint was of step 60
    for step in range(70, 141, 10):
        resumed.metrics({"train/loss": 1.0}, step)
    assert steps(resumed) == list(range(0, 141, 10))


def test_a_metric_that_the_crash_prevented_is_written_after_a_resume(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.metrics({"train/loss": 1.0}, 100)  # killed before the validation of step 100
    resumed = Spool(tmp_path)
    resumed.metrics({"train/loss": 1.0, "val/loss": 2.0}, 100)
    assert steps(resumed, "train/loss") == [100]
    assert steps(resumed, "val/loss") == [100]


def test_pictures_and_tables_repeated_after_a_resume_are_written_once(tmp_path: Path) -> None:
    for _ in range(2):
        spool = Spool(tmp_path)
        for step in (10, 20):
            spool.image("val/answers", step, tmp_path / "a.png")
            spool.table("answers", step, [{"question": "?"}])
    assert kinds(spool).count("image") == 2
    assert kinds(spool).count("table") == 2


def test_a_resumed_spool_keeps_its_identity(tmp_path: Path) -> None:
    assert Spool(tmp_path).uid == Spool(tmp_path).uid != Spool(tmp_path / "other").uid


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_only_rank_zero_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    spool = Spool(tmp_path / "spool")
    spool.metrics(METRICS, 0)
    spool.text("plan.md", "text")
    assert not spool.writes
    assert not (tmp_path / "spool").exists()


def _write(spool: Spool) -> None:
    spool.metrics({"train/loss": 9.0}, 9)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_write(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    child = get_context("fork").Process(target=_write, args=(spool,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert steps(spool) == []


def test_a_pickled_copy_does_not_write(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    _write(pickle.loads(pickle.dumps(spool)))
    assert steps(spool) == []
    spool.metrics({"train/loss": 1.0}, 1)
    assert steps(spool) == [1]


def test_a_full_disk_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def nearly_full(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:10])

    for write in (full, nearly_full, nearly_full):
        monkeypatch.setattr(os, "write", write)
        spool.metrics({"train/loss": 1.0}, 0)
    monkeypatch.setattr(os, "write", real)
    spool.metrics({"train/loss": 1.0}, 1)
    assert steps(spool) == [1]
    assert len(caplog.records) == 1
    assert "Free some space" in caplog.text


def test_a_read_only_folder_is_an_error_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file")


def test_more_parameters_than_fit_above_a_picture_are_an_error(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.params({f"p{number}": number for number in range(8)})
    with pytest.raises(ValueError, match="at most 8 leave it visible"):
        spool.params({"one.more": 1})


def test_parameters_may_be_recorded_again_by_a_resumed_run(tmp_path: Path) -> None:
    few = {f"p{number}": number for number in range(8)}
    Spool(tmp_path).params(few)
    resumed = Spool(tmp_path)
    resumed.params(few)
    assert kinds(resumed).count("params") == 1


def test_an_unknown_status_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RUNNING, FINISHED, FAILED, KILLED"):
        Spool(tmp_path).status("DONE")  # type: ignore[arg-type]


def test_files_of_the_run_are_named_so_that_the_run_may_move(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "digits" / "otter"
    spool = Spool(run / "learn" / "tracking")
    (run / "plan.md").write_text("plan")
    spool.artifact(run / "plan.md")
    spool.artifact(tmp_path / "elsewhere.txt")
    paths = [event["path"] for event, _ in read_events(spool.path) if event["k"] == "artifact"]
    assert paths == ["../../plan.md", str(tmp_path / "elsewhere.txt")]


def test_credentials_of_a_dataset_are_not_recorded(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.dataset("llava", "abc", "https://me:secret@host/llava")
    assert "secret" not in spool.path.read_text()
