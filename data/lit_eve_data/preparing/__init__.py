"""Sources to datasets, once: in processes of their own, verified, whole or not at all."""
