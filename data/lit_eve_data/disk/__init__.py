"""A prepared dataset as it lies on disk: records, chunks, manifest; nothing that runs code."""
