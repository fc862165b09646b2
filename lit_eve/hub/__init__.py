"""Runs as Hugging Face models: written, found by the Auto classes, registered in MLflow."""
