"""One run, from an experiment file to scores: `run.py` is where to start reading."""
