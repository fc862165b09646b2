"""Feeds: from samples on disk to batches. A leaf: knows no model and no task."""
