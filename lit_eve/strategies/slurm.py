"""A SLURM job that is preempted, requeued, and goes on as the same run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lit_eve.strategies.launch import Launch

STOPPED = 143
"""Exit code of a run that a signal ended in good order."""


@dataclass(frozen=True)
class Job:
    """What the cluster is asked for."""

    name: str
    hours: float
    gpus: bool = True
    partition: str | None = None
    account: str | None = None
    cpus_per_task: int = 8
    warning_seconds: int = 180
    """How long before its end the job is told; one step and one checkpoint must fit in."""

    def __post_init__(self) -> None:
        if not self.name or any(character.isspace() for character in self.name):
            raise ValueError(f"a job cannot be called {self.name!r}: give a name without spaces.")
        if self.hours * 3600 <= self.warning_seconds:
            raise ValueError(
                f"{self.hours} hours are over {self.warning_seconds} s after the warning: give the "
                "job more time, or a shorter warning."
            )


def job_script(job: Job, launch: Launch, command: Sequence[str], runs: PurePosixPath) -> str:
    """The text for `sbatch`.

    The run's directory is named after the job, whose number survives requeueing: the first start
    runs `command`, every later one resumes. `USR1` comes `warning_seconds` before the end and on
    preemption `TERM`; either ends the run after its step, saved, and the job queues itself again.

    Args:
        job: what to ask for.
        launch: processes and nodes; one task per device, started by `srun`.
        command: `lit-eve run ...` as the user would type it.
        runs: directory on a file system that all nodes share.
    """
    minutes = max(1, round(job.hours * 60))
    directives = [
        f"--job-name={job.name}",
        f"--nodes={launch.nodes}",
        f"--ntasks-per-node={launch.devices}",
        *([f"--gpus-per-node={launch.devices}"] if job.gpus else []),
        f"--cpus-per-task={job.cpus_per_task}",
        f"--time={minutes // 60:02d}:{minutes % 60:02d}:00",
        *([f"--partition={job.partition}"] if job.partition else []),
        *([f"--account={job.account}"] if job.account else []),
        f"--signal=USR1@{job.warning_seconds}",
        "--requeue",
        "--open-mode=append",
    ]
    folder = shlex.quote(str(runs / job.name))
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {directive}" for directive in directives),
            "",
            f'export LIT_EVE_RUN_DIRECTORY={folder}/slurm-"$SLURM_JOB_ID"',
            "export OMP_NUM_THREADS=1",
            'if [ -f "$LIT_EVE_RUN_DIRECTORY/experiment.yaml" ]; then',
            '    srun lit-eve resume "$LIT_EVE_RUN_DIRECTORY"',
            "else",
            f"    srun {shlex.join(command)}",
            "fi",
            "code=$?",
            f"if [ $code -eq {STOPPED} ]; then",
            '    scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            "exit $code",
            "",
        ]
    )
