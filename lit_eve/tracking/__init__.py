"""Tracking: a training only appends to a local spool; another process carries the spool to MLflow.

Nothing is imported here: `spool` must stay importable without torch, lightning or mlflow.
"""
