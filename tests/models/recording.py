"""What PyTorch did: names of operations and the size of the largest result."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base is untyped
    """Every operation inside the `with`, those of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[str] = []
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append(str(func))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
        return result

    @property
    def waits(self) -> list[str]:
        """Operations for which a GPU would make the host wait."""
        signs = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "is_nonzero")
        return [name for name in self.operations if any(sign in name for sign in signs)]
