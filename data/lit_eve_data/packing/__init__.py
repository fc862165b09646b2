"""Which samples share a row or a batch, and in which order: plans without reading a file."""
