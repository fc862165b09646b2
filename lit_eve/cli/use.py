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
    from lit_eve.running.directory import RunDirectory

Stage = Annotated[str | None, typer.Option(help="Its weights; the last one's if absent.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest answer.", min=1)]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token.")]
TopP = Annotated[float, typer.Option(help="Draw among the likeliest this share.")]
BatchTokens = Annotated[
    int, typer.Option(help="Prompt and answer tokens of a batch: more memory, faster.", min=1)
]
TASKS = Path("experiments/tasks")
LOCAL = "127.0.0.1"
Seed = Annotated[int, typer.Option(help="Of what is drawn.")]


def evaluate(
    run: Run,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks, with commas between; the run's own data if absent.")
    ] = None,
    task_dir: Annotated[Path, typer.Option(help="Where files of tasks are.")] = TASKS,
    stage: Stage = None,
    questions: Annotated[
        int | None, typer.Option(help="Questions of each kind, or of a task.", min=1)
    ] = None,
    batch_tokens: BatchTokens = 8192,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Score a run's model on held-out questions, or on benchmarks."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    if tasks is None:
        from lit_eve.evaluation.evaluate import evaluate_run

        evaluate_run(directory, stage, questions, data, console())
    else:
        from lit_eve.schema.benchmarks import find_benchmark

        names = [name.strip() for name in tasks.split(",") if name.strip()]
        files = [find_benchmark(name, task_dir) for name in names]
        _evaluate_tasks(directory, files, stage, questions, data, batch_tokens)
    print(f"next  lit-eve generate {run} --image FILE --prompt TEXT")


def _evaluate_tasks(
    directory: RunDirectory,
    files: Sequence[Path],
    stage: str | None,
    questions: int | None,
    data: Path,
    batch_tokens: int,
) -> None:
    """All tasks are read before the first is put."""
    from lit_eve.evaluation.benchmark import evaluate_task, prepare, show
    from lit_eve.inference.opening import open_assistant

    terminal = console()
    prepared = [prepare(file, data, questions, terminal) for file in files]
    assistant = replace(open_assistant(directory, stage), slots=batch_tokens)
    results = [evaluate_task(assistant, task, directory, terminal) for task in prepared]
    show(results, terminal)
    for result in results:
        terminal.print(f"wrote {result.folder}", highlight=False, soft_wrap=True)


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
    batch_tokens: BatchTokens = 8192,
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


def chat(
    run: Run,
    web: Annotated[bool, typer.Option(help="On a page instead of the terminal.")] = False,
    host: Annotated[str, typer.Option(help="Whom the page answers: 0.0.0.0 is all.")] = LOCAL,
    port: Annotated[int | None, typer.Option(help="Of the page; a free one if absent.")] = None,
    stage: Stage = None,
    max_new_tokens: MaxNewTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    runs: Runs = RUNS,
) -> None:
    """Talk with a run's model about pictures."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    if not web and (host != LOCAL or port is not None):
        raise ValueError("--host and --port would be ignored in the terminal. Add --web.")
    from lit_eve.inference.assistant import Decoding
    from lit_eve.inference.opening import open_assistant

    decoding = Decoding(max_new_tokens, temperature, top_p).checked()
    if web:
        _serve(open_assistant(directory, stage), decoding, seed, (host, port))
        return
    from lit_eve.chat.terminal import Chat

    Chat(open_assistant(directory, stage), decoding, console(), seed=seed).run()
    print(f"next  lit-eve evaluate {run} --tasks scenes")


def _serve(
    assistant: Assistant, decoding: Decoding, seed: int, address: tuple[str, int | None]
) -> None:
    """Serve the page until somebody stops it, by Ctrl-C or by a signal to end."""
    import signal
    import threading

    try:
        from lit_eve.chat.page import Page, serving
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the page needs Gradio, which is not installed ({error}). Run: "
            "pip install 'lit-eve[web]', or talk in the terminal without --web."
        ) from error
    with serving(
        lambda folder: Page(assistant, decoding, folder, seed), "lit-eve", *address
    ) as url:
        console().print(f"open {url}  (Ctrl-C ends it)")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # or uploads would be left behind
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
