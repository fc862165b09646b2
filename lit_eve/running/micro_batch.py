"""`micro_batch: largest`: how many rows fit, found before training and kept in the plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self, TypeVar

import torch

from lit_eve.running.dry_steps import DryRun, environment
from lit_eve.running.kinds import Kind
from lit_eve.running.kinds.packed import Packed
from lit_eve.strategies import Launch
from lit_eve.strategies.batch_size import largest_that_fits
from lit_eve.strategies.meeting import said_by_all, said_by_rank_zero
from lit_eve.tracking.spool import environment_rank

KEY = "micro_batch"
"""Of a stage in `plan.json`."""
K = TypeVar("K", bound=Kind[Any, Any])


@dataclass(frozen=True)
class Found:
    """The largest micro-batch of a stage."""

    rows: int
    peak: int
    """Bytes that training on so many rows takes at most, on the device where it is the most."""
    limit: int
    """Bytes that there are on that device."""
    on: Mapping[str, Any]
    """What it was found on; another machine is measured anew."""


class DrySteps:
    """A process that makes dry steps, started again where it was ended for taking too much.

    Attributes:
        limit: bytes that there are on its device.
    """

    command = (sys.executable, "-m", "lit_eve.running.dry_steps")

    def __init__(self, run: DryRun) -> None:
        self.run = run
        self.limit = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._errors = TemporaryFile("w+", encoding="utf-8")  # until __exit__
        self._start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def peak(self, rows: int) -> int | None:
        """Bytes that training on so many rows takes; None if it ran out of memory.

        Raises:
            RuntimeError: if the steps fail for another reason, with what the process wrote.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rows}\n")
        self._process.stdin.flush()
        return self._answer("peak")

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [*self.command, self.run.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(self.run, os.environ),
        )
        self.limit = self._answer("limit") or 0

    def _answer(self, name: str) -> int | None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if line:
            value: int | None = json.loads(line)[name]
            return value
        process.communicate()
        self._process = None
        if process.returncode == -9 and name == "peak":
            return None  # the system ended it for taking too much
        self._errors.seek(0)
        raise RuntimeError(
            f"dry steps of stage {self.run.stage} failed, so it is not known how many rows fit. "
            "Write hardware.micro_batch as a number, or auto, if this is not to be mended:\n"
            + self._errors.read()[-4000:]
        )


def find(
    kind: Kind[Any, Any],
    names: Sequence[str],
    spread: Launch,
    data: Path,
) -> dict[str, Found]:
    """The largest micro-batch of every stage in `names`, and of those whose is known.

    The same on all ranks.

    Every rank measures its own device, or the one that starts the others all of this machine, and
    the smallest number counts. What a run has found is kept in its plan: a resumed run goes on with
    it unless its hardware is another.

    Args:
        kind: the run; its file was checked.
        names: stages that will train.
        spread: its processes.
        data: root of prepared datasets.

    Raises:
        ValueError: on all ranks, if not even one row of a stage fits on one of them.
    """
    if kind.experiment.hardware.micro_batch != "largest":
        return {}
    assert isinstance(kind, Packed)
    found = _known(kind, list(kind.experiment.trained), spread)
    for name in names:
        if name not in found:
            on = _conditions(kind, name, spread)
            found[name] = replace(_search(kind, name, spread, data), on=on)
        _tell(kind, name, found[name], spread)
    return found


def settled(kind: K, found: Found | None) -> K:
    """The run with a number in the place of `largest`."""
    if found is None:
        return kind
    hardware = kind.experiment.hardware.model_copy(update={"micro_batch": found.rows})
    return replace(kind, experiment=kind.experiment.model_copy(update={"hardware": hardware}))


def _search(kind: Packed[Any, Any], name: str, spread: Launch, data: Path) -> Found:
    """By all ranks that there are; what one of them cannot do is everybody's error."""
    kind.console.print(f"  {name}: looking for the most rows that fit")
    rows = ceil(kind.packing(name).rows_per_step / spread.world_size)

    def on_device(local_rank: int) -> str:
        place = (str(kind.directory.path), str(data.absolute()), name)
        run = DryRun(*place, spread.devices, spread.nodes, local_rank)
        try:
            return json.dumps(asdict(_largest(run, rows)))
        except Exception as error:  # the others wait for an answer
            return json.dumps({"error": str(error), "mistake": isinstance(error, ValueError)})

    if spread.by == "lightning":
        with ThreadPoolExecutor(spread.devices) as pool:
            answers = list(pool.map(on_device, range(spread.devices)))
    else:
        mine = on_device(int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))))
        answers = said_by_all(f"micro-batch of {name}", mine)
    told = [json.loads(answer) for answer in answers]
    for answer in told:
        if "error" in answer:
            raise (ValueError if answer["mistake"] else RuntimeError)(
                f"stage {name}, in rows of {kind.stage(name).tokens_per_row} tokens: "
                + answer["error"]
            )
    return min((Found(**answer) for answer in told), key=lambda found: found.rows)


def _largest(run: DryRun, rows: int) -> Found:
    """On this device, of at most so many rows."""
    peaks: dict[int, int] = {}
    with DrySteps(run) as steps:

        def peak(size: int) -> int | None:
            value = steps.peak(size)
            if value is not None:
                peaks[size] = value
            return value

        most = largest_that_fits(peak, steps.limit, smallest=1, largest=rows)
    return Found(most, peaks[most], steps.limit, {})


def _tell(kind: Packed[Any, Any], name: str, found: Found, spread: Launch) -> None:
    rounds = ceil(kind.packing(name).rows_per_step / (spread.world_size * found.rows))
    kind.console.print(
        f"  {name}: {found.rows} rows at once on each device, {rounds} rounds a step; "
        f"{found.peak / 2**30:.2f} of {found.limit / 2**30:.2f} GiB"
    )


def _known(kind: Packed[Any, Any], names: Sequence[str], spread: Launch) -> dict[str, Found]:
    """What the run's plan says and still holds, as rank zero sees it."""
    file = kind.directory.path / "plan.json"
    told = spread.by == "lightning" and environment_rank() > 0  # by whom this process was started

    def say() -> str:
        plans = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        entries = {name: plans[name][KEY] for name in names if KEY in plans.get(name, {})}
        holds = {
            name: entry
            for name, entry in entries.items()
            if told or entry["on"] == _conditions(kind, name, spread)
        }
        return json.dumps(holds)

    text = say() if spread.by == "lightning" else said_by_rank_zero("micro-batches", say)
    return {name: Found(**entry) for name, entry in json.loads(text).items()}


def _conditions(kind: Packed[Any, Any], name: str, spread: Launch) -> dict[str, Any]:
    """What decides how much fits, apart from what a run cannot change."""
    hardware = kind.experiment.hardware
    gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_properties(0).name if gpu else "cpu",
        "processes": spread.world_size,
        "nodes": spread.nodes,
        "precision": kind.stage(name).precision,
        "strategy": hardware.strategy,
        "replicate": hardware.replicate,
        "offload": hardware.offload,
        "compile": hardware.compile,
        "activation_checkpointing": hardware.activation_checkpointing,
    }
