"""What a machine must have for a run, said before work starts."""

from __future__ import annotations

import torch

from lit_eve.strategies.build import StrategyName
from lit_eve.strategies.launch import Launch


def check_machine(accelerator: str, strategy: StrategyName, launch: Launch, precision: str) -> None:
    """Compare what a run asks for with this machine.

    Args:
        accelerator: `auto`, `cpu`, `gpu` or `mps`.
        strategy: as in the experiment file.
        launch: processes and nodes.
        precision: Lightning's name.

    Raises:
        ValueError: naming everything that does not fit, and the file's key to change.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    problems = []
    if accelerator == "gpu" and not gpus:
        problems.append("there is no GPU: set hardware.accelerator to auto or cpu")
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
        raise ValueError(f"this machine does not fit: {'; '.join(problems)}.")
