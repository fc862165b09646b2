# One word for everything a change needs.
.PHONY: check setup test fast pins schema

check:   ## what the continuous integration runs
	bash .ci/run

setup:   ## a developer's machine: environment and hooks
	uv sync --all-extras
	uv run pre-commit install

test:    ## all tests
	uv run pytest

fast:    ## tests that take no more than a moment each
	uv run pytest -m "not slow" -x -q

schema:  ## what editors complete experiment files with
	uv run lit-eve schema

pins:    ## newest versions within the bounds of pyproject.toml
	python3 tools/pin.py
