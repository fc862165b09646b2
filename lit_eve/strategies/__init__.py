"""One device, copies on many (DDP), or shards on many (FSDP2): what Lightning needs to be told.

Lightning's internals that are overridden here (`_setup_model`, `_register_ddp_hooks`,
`_save_distributed_checkpoint`) are pinned by its version and by `tests/distributed`.
"""

from lit_eve.strategies.blocks import blocks, compile_blocks
from lit_eve.strategies.build import Sharding, build_strategy
from lit_eve.strategies.launch import Launch, detect_launch, shut_down
from lit_eve.strategies.replicated import ReplicatedStrategy
from lit_eve.strategies.sharded import ShardedStrategy
from lit_eve.strategies.weights import (
    builds_on_meta,
    gather_weights,
    shared_out,
    usable_weights,
)

__all__ = [
    "Launch",
    "ReplicatedStrategy",
    "ShardedStrategy",
    "Sharding",
    "blocks",
    "build_strategy",
    "builds_on_meta",
    "compile_blocks",
    "detect_launch",
    "gather_weights",
    "shared_out",
    "shut_down",
    "usable_weights",
]
