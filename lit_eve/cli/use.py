"""Verbs that put a trained model to work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import DATA, RUNS, Data, Run, Runs, console


def evaluate(
    run: Run,
    stage: Annotated[
        str | None, typer.Option(help="Its weights; the last one's if absent.")
    ] = None,
    questions: Annotated[int | None, typer.Option(help="Questions of each kind.")] = None,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Ask a run's model held-out questions and score its answers."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.evaluation.evaluate import evaluate_run

    evaluate_run(directory, stage, questions, data, console())
    print(f"next  lit-eve generate {run} --image FILE --prompt TEXT")


def generate(
    run: Run,
    prompt: Annotated[str, typer.Option(help="Question or instruction.")],
    image: Annotated[list[Path] | None, typer.Option(help="Picture, may be repeated.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="Its weights; the last one's if absent.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Ask a run's model a question about pictures."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.evaluation.evaluate import Request, answer

    request = Request(prompt, image or (), max_new_tokens, temperature, top_p, seed)
    print(answer(directory, stage, data, request))
