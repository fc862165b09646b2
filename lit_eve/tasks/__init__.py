"""LightningModules: thin coats that connect ready-made modules, log, and own the optimizer."""
