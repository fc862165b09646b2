"""Counting before paying: parameters, arithmetic, memory, steps, disk."""
