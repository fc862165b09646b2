"""Held-out questions, answered by generation."""
