"""What a machine must have for a run, said before work starts."""

from __future__ import annotations

import torch

from lit_eve.strategies.build import StrategyName
from lit_eve.strategies.launch import Launch


def check_machine(
    accelerator: str,
    strategy: StrategyName,
    launch: Launch,
    precision: str,
    *,
    offload: bool = False,
    machine: str | None = None,
) -> None:
    """Compare what a run asks for with this machine.

    Args:
        accelerator: `auto`, `cpu`, `gpu` or `mps`.
        strategy: as in the experiment file.
        launch: processes and nodes.
        precision: Lightning's name.
        offload: whether shards are kept in the host's memory.
        machine: what the file calls the machine that it is for.

    Raises:
        ValueError: naming everything that does not fit, and the file's key to change.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    problems = []
    if accelerator == "gpu" and not gpus:
        problems.append("there is no GPU: set hardware.accelerator to auto or cpu")
    if offload and not gpus:
        problems.append("there is no GPU whose memory hardware.offload could save: take it out")
    if gpus and accelerator in ("auto", "gpu") and launch.devices > gpus:
        problems.append(
            f"{launch.devices} devices are asked for and {gpus} are there: set hardware.devices to "
            f"{gpus} or auto"
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        problems.append("there is no Apple GPU: set hardware.accelerator to auto")
    if accelerator == "mps" and launch.world_size > 1:
        problems.append("an Apple GPU trains alone: set hardware.devices to 1")
    if strategy in ("fsdp", "hsdp") and precision == "16-mixed":
        problems.append(f"{strategy} cannot scale gradients for fp16: set precision to bf16")
    if precision == "16-mixed" and accelerator == "cpu":
        problems.append("a CPU has no fp16 training: set precision to bf16 or float32")
    if problems:
        named = "" if machine is None else f" hardware.machine: {machine}"
        raise ValueError(f"this machine does not fit{named}: {'; '.join(problems)}.")
