"""Time and operations of callables, and the floor that their matrix products set."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base is untyped
    """How many operations ran, and the shapes of the matrix products among them."""

    NAMES = ("aten::mm", "aten::bmm", "aten::addmm")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.waits = 0
        self.shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        self.operations += 1
        self.waits += name in ("aten::_local_scalar_dense", "aten::nonzero")
        if name in self.NAMES:
            left, right = args[-2:]
            self.shapes.append((tuple(left.shape), tuple(right.shape)))
        return func(*args, **(kwargs or {}))

    def replay(self, device: torch.device) -> Callable[[], None]:
        """The same products on memory of their own, and nothing else."""
        pairs = {
            (left, right): (torch.randn(left, device=device), torch.randn(right, device=device))
            for left, right in self.shapes
        }

        def run() -> None:
            for shapes in self.shapes:
                torch.matmul(*pairs[shapes])

        return run


def record(run: Callable[[], None]) -> Products:
    recorded = Products()
    with recorded:
        run()
    return recorded


def timed(runs: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of each, taken in turns so that all meet the same machine."""
    for run in runs.values():
        run()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (median(wall for wall, _ in times), median(cpu for _, cpu in times))
        for name, times in taken.items()
    }


def row(label: str, *cells: str) -> None:
    print(f"{label:<34}" + "".join(f"{cell:>17}" for cell in cells), flush=True)
