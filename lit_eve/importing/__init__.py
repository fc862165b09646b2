"""Weights of others into the platform's own modules, without running anything they bring."""
