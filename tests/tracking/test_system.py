from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_eve.tracking.system import GIB, SystemSampler


def test_a_busy_process_is_seen_with_its_children(tmp_path: Path) -> None:
    work = "while True: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{work}'])"
    with subprocess.Popen([sys.executable, "-c", parent], start_new_session=True) as process:
        try:
            sampler = SystemSampler(process.pid, tmp_path)
            for _ in range(100):
                time.sleep(0.1)  # a share of CPU needs a while to be one, more on a busy machine
                values = sampler.sample()
                if values["system/process_cpu_percent"] > 5:
                    break
            assert values["system/process_cpu_percent"] > 5
            assert 0.001 < values["system/process_memory_gib"] < 1
            assert values["system/disk_free_gib"] > 0
        finally:
            os.killpg(process.pid, 9)


def test_a_process_that_is_gone_is_not_measured(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    sampler = SystemSampler(process.pid, tmp_path)
    process.wait()
    assert sampler.sample() == {}


def test_accelerators_are_measured_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(handle: int) -> SimpleNamespace:
        if handle == 1:
            raise RuntimeError("the device fell off the bus")
        return SimpleNamespace(gpu=97)

    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lost,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3 * GIB),
        nvmlDeviceGetPowerUsage=lambda handle: 350_000,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    values = SystemSampler(os.getpid(), tmp_path).sample()
    assert values["system/gpu0_percent"] == 97
    assert values["system/gpu0_memory_gib"] == 3
    assert values["system/gpu0_watt"] == 350
    assert "system/gpu1_percent" not in values
