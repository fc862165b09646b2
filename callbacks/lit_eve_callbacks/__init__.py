"""Steers: changes or watches a run from outside. A leaf: knows no model and no task."""
