"""FSDP2: every rank holds a share of weights, gradients and optimizer state.

On top of Lightning's ModelParallelStrategy, whose defaults shard nothing on one node and give all
ranks the same data, and whose saving and restoring lose state in silence. Each override below says
which of those it prevents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from lit_eve.checkpoints import files
from lit_eve.checkpoints.atomic import checked_name
from lit_eve.strategies.blocks import unique_blocks
from lit_eve.strategies.restoring import Stored
from lit_eve.strategies.saving import ShardWriter, finish_together, together
from lit_eve.strategies.weights import full_state, hand_out, hollow_out

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2, and HSDP if `replicate` is above 1.

    The whole task is one unit and every block of a Transformers model inside it is one more, so no
    parameter can lie outside: it would train on each rank alone. A rank whose model lies on the
    meta device gets its shard from rank zero.

    Args:
        replicate: how many copies of the sharded model; ranks are `replicate` x shards.
        gather_dtype: what weights are gathered and computed in; gradients are reduced in float32.
            None is the weights' own.
        offload: keep shards, gradients and optimizer state in host memory (CUDA only).
        sharded_checkpoints: one file per rank (a folder), or one file for all written by rank zero.
        background: write shards in a thread, from a copy in host memory; one file for all is
            written in the background by `AtomicCheckpointIO`.
        reduce_every_micro_batch: reduce gradients after every micro-batch of an accumulation, which
            costs traffic and saves the memory of one whole set of gradients.
        hollow: shards of zeros, of a model on the meta device, to measure what training would take.
        timeout: after which a rank that waits gives up.
    """

    def __init__(
        self,
        replicate: int = 1,
        gather_dtype: torch.dtype | None = None,
        offload: bool = False,
        sharded_checkpoints: bool = True,
        background: bool = False,
        reduce_every_micro_batch: bool = False,
        hollow: bool = False,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        super().__init__(
            data_parallel_size="auto",
            tensor_parallel_size=1,
            save_distributed_checkpoint=sharded_checkpoints,
            process_group_backend="cpu:gloo,cuda:nccl" if offload else None,
            timeout=timeout,
        )
        self.replicate = replicate
        self.reduce_every_micro_batch = reduce_every_micro_batch
        self._hollow = hollow
        self._writer = ShardWriter(background)
        self._policy = MixedPrecisionPolicy(
            param_dtype=gather_dtype, reduce_dtype=torch.float32 if gather_dtype else None
        )
        self._offload = CPUOffloadPolicy() if offload else OffloadPolicy()

    def setup_environment(self) -> None:
        """Shard over all ranks: Lightning's `auto` means the number of nodes, so 1 on one node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Shard, hand out the weights, make the optimizer.

        Raises:
            RuntimeError: if a parameter that trains is in no shard.
        """
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        module = self._task
        if not isinstance(module, FSDPModule):
            state = {} if self._hollow else full_state(module)
            self._shard(module)
            if self._hollow:
                hollow_out(module, self.root_device)
            else:
                hand_out(module, state, self.root_device)
        self.model = self.precision_plugin.convert_module(module)
        self.model_to_device()
        offloaded = isinstance(self._offload, CPUOffloadPolicy)
        self._writer.shards_are_copies = self.root_device.type != "cpu" and not offloaded
        self.barrier()
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if fitting:
            _optimizers_to_device(self.optimizers, self.root_device)
        self._refuse_unsharded()

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Accumulate without a reduce-scatter per micro-batch; Lightning knows only DDP here."""
        if self.reduce_every_micro_batch:
            yield
            return
        for unit in self._units():
            unit.set_requires_gradient_sync(False, recurse=False)
        try:
            yield
        finally:
            for unit in self._units():
                unit.set_requires_gradient_sync(True, recurse=False)

    def on_requires_grad_changed(self) -> None:
        """Let every unit derive its dtypes again; it does so once, from what trained then."""
        for unit in self._units():
            unit.unshard()
            unit.reshard()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Runs after the callbacks' hook of this name.

        Raises:
            RuntimeError: if a parameter that trains is in no shard.
        """
        self._refuse_unsharded()

    def on_validation_end(self) -> None:
        """A forward pass without a backward pass leaves what is outside the blocks whole."""
        self._task.reshard()  # type: ignore[operator]  # it is an FSDPModule

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write beside, hash, rename; on one rank's failure every rank raises.

        Overwriting a folder of shards in place, as Lightning does, mixes two steps when it is
        killed, and the mixture loads.

        Raises:
            CheckpointError: if the checkpoint could not be written.
        """
        final = checked_name(self.broadcast(str(filepath)))
        if not self._save_distributed_checkpoint:
            write = super().save_checkpoint
            together(lambda: write(checkpoint, final, storage_options), final)
            return
        temporary = Path(self.broadcast(str(files.temporary_beside(final))))
        self._writer.write(checkpoint, final, temporary)

    def finish_saving(self) -> None:
        """Wait for a checkpoint that is being written in the background.

        Raises:
            CheckpointError: on all ranks, if it could not be written.
        """
        self._writer.finish()
        if not self._save_distributed_checkpoint:
            finish_together(self.checkpoint_io)

    def finish_alone(self) -> None:
        """Likewise, without asking the other ranks: after an exception they may be gone."""
        self._writer.finish()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verify, then load every shard and all optimizer state.

        torch restores the state of parameters that require gradients at that moment and forgets the
        rest in silence, so `requires_grad` says what the checkpoint holds while it loads.

        Raises:
            CheckpointError: if the checkpoint is not whole.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        self.finish_saving()
        together(lambda: self._verify(path), path)
        stored = Stored(path, self._task, self.optimizers)
        parameters = dict(self._task.named_parameters())
        before = {name: parameter.requires_grad for name, parameter in parameters.items()}
        try:
            if self.optimizers:
                held = stored.names_with_state()
                for name, parameter in parameters.items():
                    parameter.requires_grad_(name in held)
            return stored.restore() or super().load_checkpoint(path)
        finally:
            for name, parameter in parameters.items():
                parameter.requires_grad_(before[name])

    @property
    def _task(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def _verify(self, path: Path) -> None:
        if self.is_global_zero:
            files.verify(path)

    def _mesh(self) -> DeviceMesh:
        if self.replicate == 1:
            return self.device_mesh["data_parallel"]
        if self.world_size % self.replicate:
            raise ValueError(
                f"{self.replicate} copies cannot share {self.world_size} processes equally. Make "
                "hardware.replicate divide their number."
            )
        return init_device_mesh(
            self.root_device.type,
            (self.replicate, self.world_size // self.replicate),
            mesh_dim_names=("replicate", "shard"),
        )

    def _shard(self, module: LightningModule) -> None:
        options: dict[str, Any] = {
            "mesh": self._mesh(),
            "mp_policy": self._policy,
            "offload_policy": self._offload,
        }
        for block in reversed(unique_blocks(module)):
            fully_shard(block, **options)
        fully_shard(module, **options)
        for step in _STEPS:
            register_fsdp_forward_method(module, step)

    def _units(self) -> list[FSDPModule]:
        return [module for module in self._task.modules() if isinstance(module, FSDPModule)]

    def _refuse_unsharded(self) -> None:
        alone = [
            name
            for name, parameter in self._task.named_parameters()
            if parameter.requires_grad and not isinstance(parameter, DTensor)
        ]
        if alone and self.world_size > 1:
            raise RuntimeError(
                f"these parameters train but are in no shard, so each rank would train its own: "
                f"{', '.join(alone[:5])}. Make them in the task's __init__, or freeze them."
            )
