"""Verbs that put a trained model to work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lit_eve.cli.words import DATA, RUNS, Data, Run, Runs, console

if TYPE_CHECKING:
    from lit_eve.inference.assistant import Assistant, Decoding
    from lit_eve.inference.requests import Request

Stage = Annotated[str | None, typer.Option(help="Its weights; the last one's if absent.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest answer.", min=1)]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token.")]
TopP = Annotated[float, typer.Option(help="Draw among the likeliest this share.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn.")]


def evaluate(
    run: Run,
    stage: Stage = None,
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
    prompt: Annotated[
        str | None, typer.Option(help="Question or instruction; <image> stands for a picture.")
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Picture, may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts: a JSON object a line.")
    ] = None,
    image_dir: Annotated[
        Path | None, typer.Option(help="Ask about every picture in it; with --prompts, its root.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the answers, a line each.")] = None,
    stage: Stage = None,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    batch_tokens: Annotated[
        int, typer.Option(help="Prompt and answer tokens of a batch: more memory, faster.", min=1)
    ] = 8192,
    runs: Runs = RUNS,
) -> None:
    """Ask a run's model about pictures, once or a whole file."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.inference.assistant import Decoding
    from lit_eve.inference.requests import requests_of

    decoding = Decoding(max_new_tokens, temperature, top_p).checked()
    requests = requests_of(prompt, image or [], image_dir, prompts, seed)
    from lit_eve.inference.opening import open_assistant

    assistant = replace(open_assistant(directory, stage), slots=batch_tokens)
    if len(requests) == 1 and out is None:
        _say(assistant, requests[0], decoding)
    else:
        _answer_all(assistant, requests, decoding, out)
        print(f"next  lit-eve chat {run}", file=sys.stderr)


def _say(assistant: Assistant, request: Request, decoding: Decoding) -> None:
    """One answer, word by word."""

    def write(words: str) -> None:
        print(words, end="", flush=True)

    answer = assistant.stream(request.question(), decoding, write)
    print()
    if not answer.finished:
        note = f"cut off after {answer.tokens} tokens: --max-new-tokens {2 * answer.tokens}"
        print(f"note  {note} would let it go on", file=sys.stderr)


def _answer_all(
    assistant: Assistant, requests: Sequence[Request], decoding: Decoding, out: Path | None
) -> None:
    """Many answers: to a file, or a line each to whoever reads this."""
    from lit_eve.inference.requests import AnswerFile, answer_line
    from lit_eve.running.bars import progress_line

    questions = (request.question() for request in requests)
    file = None if out is None else AnswerFile(out)
    with progress_line(console(stderr=True), "answering", "questions") as bar:
        bar(0, len(requests))
        answers = assistant.answers(questions, decoding, bar, len(requests))
        for request, answer in zip(requests, answers, strict=True):
            if file is None:
                print(answer_line(request, answer), flush=True)
            else:
                file.write(request, answer)
    if file is not None:
        file.finish()
        print(f"wrote {out}: {len(requests)} answers", file=sys.stderr)
