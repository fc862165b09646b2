"""What the machine does while a run trains: processor, memory, accelerators."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from lit_eve.tracking.liveness import process_alive

GIB = 2.0**30


class SystemSampler:
    """Measures one process with its children, and the machine around it.

    Shares of a processor: 100 per cent is one core busy. Sampled from outside the training, so the
    training pays nothing for it.
    """

    def __init__(self, pid: int, directory: Path) -> None:
        """Args: the process that trains, and a folder of the disk that fills up."""
        self.pid = pid
        self.directory = directory
        self._known: dict[int, psutil.Process] = {}
        self._accelerators = _Accelerators()
        psutil.cpu_percent()  # the first call only starts the clock

    def sample(self) -> dict[str, float]:
        """Numbers by key; empty once the process is gone."""
        if not process_alive(self.pid):
            return {}
        busy = resident = 0.0
        with suppress(psutil.Error):
            for process in self._family():
                with suppress(psutil.Error):
                    busy += process.cpu_percent()
                    resident += process.memory_info().rss
        values = {
            "system/process_cpu_percent": busy,
            "system/process_memory_gib": resident / GIB,
            "system/machine_cpu_percent": psutil.cpu_percent(),
            "system/machine_memory_percent": psutil.virtual_memory().percent,
        }
        with suppress(OSError):
            values["system/disk_free_gib"] = psutil.disk_usage(str(self.directory)).free / GIB
        return values | self._accelerators.sample()

    def _family(self) -> list[psutil.Process]:
        """The process and its children, without the shipper, each as the object seen before.

        A process object measures its share since the last time that same object was asked.
        """
        mine = psutil.Process().pid
        root = psutil.Process(self.pid)
        found = {p.pid: p for p in (root, *root.children(recursive=True)) if p.pid != mine}
        self._known = {pid: self._known.get(pid, process) for pid, process in found.items()}
        return list(self._known.values())


class _Accelerators:
    """NVIDIA devices through NVML, where its Python package and a driver are there."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        with suppress(Exception):  # no package, no driver, no device: nothing to measure
            import pynvml  # type: ignore[import-not-found,unused-ignore]

            pynvml.nvmlInit()
            self._nvml = pynvml
            count = pynvml.nvmlDeviceGetCount()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def sample(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            with suppress(Exception):  # a device may fall off the bus; the run tells by itself
                busy = self._nvml.nvmlDeviceGetUtilizationRates(handle)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                values[f"system/gpu{index}_percent"] = float(busy.gpu)
                values[f"system/gpu{index}_memory_gib"] = memory.used / GIB
                power = self._nvml.nvmlDeviceGetPowerUsage(handle)
                values[f"system/gpu{index}_watt"] = power / 1000
        return values
