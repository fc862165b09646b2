"""Random numbers that go on after a resume as if nothing had happened.

Lightning stores no random state. Without it dropout differs after every resume, and without the
isolation below it also depends on how often a run validates.
"""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

KEY = "random_state"
_NumpyState = tuple[str, npt.NDArray[np.uint32], int, int, float]
State = dict[str, Any]
"""One process: tensors, tuples and numbers only, so that it loads with `weights_only=True`."""


class RandomState(Callback):
    """Saves the random state of every rank, restores it, and keeps validation out of it.

    Covers Python, NumPy, torch and CUDA. Training goes on with the state in which its last batch
    left it, whatever validation or a loader drew in between.

    Lightning gives all ranks the same seed, hence the same dropout masks. A run on several ranks
    starts from rank zero's state and the rank's number. So does one whose checkpoint is of another
    world size: it is still a function of the checkpoint.
    """

    def __init__(self) -> None:
        self._after_last_batch: State | None = None
        self._restored: list[State] | None = None
        self._disturbed = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Collect the states of all ranks; every rank must come here."""
        checkpoint[KEY] = _gather(self._after_last_batch or capture())

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the stored states until training starts: making things draws numbers."""
        self._restored = checkpoint.get(KEY)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the stored state, or a rank's own."""
        states, self._restored = self._restored, None
        if states is None and trainer.world_size > 1:
            states = _gather(capture())[:1]
        if states is not None:
            self._after_last_batch = _of_rank(states, trainer.global_rank, trainer.world_size)
            self._disturbed = True
            restore(self._after_last_batch)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Undo what was drawn since the last batch."""
        if self._disturbed and self._after_last_batch is not None:
            restore(self._after_last_batch)
        self._disturbed = False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the state; a validation's loader may draw before validation says it started."""
        self._after_last_batch = capture()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on numbers are drawn that are not training's."""
        self._disturbed = True


def capture() -> State:
    """The random state of this process."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=True)
    generator, keys, position, has_gauss, cached = cast(_NumpyState, numpy_state)
    return {
        "python": (version, torch.tensor(words, dtype=torch.int64), gauss),
        "numpy": (str(generator), torch.tensor(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(state: State) -> None:
    """Put a captured state back.

    Raises:
        ValueError: if it was captured with another number of CUDA devices in sight.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    generator, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((generator, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if state["cuda"] and devices:
        if len(state["cuda"]) != devices:
            raise ValueError(
                f"the checkpoint holds the random state of {len(state['cuda'])} CUDA devices, but "
                f"{devices} are in sight: dropout would not continue. Show the same number with "
                "CUDA_VISIBLE_DEVICES."
            )
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


def _gather(state: State) -> list[State]:
    distributed = torch.distributed
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return [state]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, state)
    return states


def _of_rank(states: list[State], rank: int, world_size: int) -> State:
    if len(states) == world_size:
        return states[rank]
    generator = torch.Generator()
    generator.set_state(states[0]["torch"].cpu())
    seed = int(torch.randint(2**31, (), generator=generator)) + rank
    before = capture()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    derived = capture()
    restore(before)
    return derived
