"""Batches of a plan, made ahead by workers, and the position in it that a run resumes from."""
