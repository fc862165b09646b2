"""The command line: verbs only. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="lit-eve",
    help="Vision-language models that see without a vision encoder: one YAML, one command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Argument(help="Experiment file.", metavar="EXPERIMENT")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes, such as stages.learn.batch=64.")
]
Tiny = Annotated[bool, typer.Option(help="Shrink it: any CPU, under a minute.")]
Run = Annotated[str, typer.Argument(help="A run: its folder, id or experiment.", metavar="RUN")]
Runs = Annotated[Path, typer.Option(help="Where runs are kept.", envvar="LIT_EVE_RUNS")]
Data = Annotated[Path, typer.Option(help="Where prepared data is kept.", envvar="LIT_EVE_DATA")]
RUNS, DATA = Path("runs"), Path("datasets")


def main() -> None:
    """Run the command line; what a user can mend is said in words, not as a traceback."""
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Print what happened; the exit code."""
    console = _console(stderr=True)
    if isinstance(error, ValueError) and hasattr(error, "problems"):  # the schema is not imported
        from lit_eve.check import Report

        console.print(Report("the experiment", None, error.problems).text(True), soft_wrap=True)
        return 2
    name = getattr(error, "name", None)
    if type(error).__name__ == "RunInterrupted" and isinstance(name, str):
        console.print(f"stopped by {name}; everything up to this step is saved")
        return 130 if name == "SIGINT" else 143
    console.print(f"[red]error[/red] {_escaped(str(error))}", highlight=False, soft_wrap=True)
    if not isinstance(error, ValueError):
        console.print_exception()
    return 1


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


@app.command()
def check(file: File, overrides: Overrides = None, tiny: Tiny = False) -> None:
    """Say whether an experiment is right, and everything that is wrong, in under a second."""
    from lit_eve.check import check as check_file

    report = check_file(file, overrides or (), tiny)
    _console().print(report.text(markup=True), soft_wrap=True)
    if not report.ok:
        raise typer.Exit(2)
    print(f"next  lit-eve plan {file}")


@app.command()
def plan(
    file: File,
    overrides: Overrides = None,
    tiny: Tiny = False,
    devices: Annotated[int | None, typer.Option(help="Devices to plan for.")] = None,
) -> None:
    """Say what an experiment will train, load, cost and leave behind, before it starts."""
    from lit_eve.plan import of_file, show

    show(of_file(file, overrides or (), tiny=tiny, devices=devices), _console())
    print(f"next  lit-eve run {file}")


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    tiny: Tiny = False,
    stage: Annotated[str | None, typer.Option(help="Stage to start at.")] = None,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Train all stages of an experiment; given a run's folder, go on with that run."""
    from lit_eve.run_directory import EXPERIMENT_FILE, RunDirectory

    going_on = (file / EXPERIMENT_FILE).is_file()
    if going_on and (overrides or tiny):
        raise ValueError(
            f"{file} is a run: it goes on as it began, so changes would be ignored. Leave them "
            "out, or start a new run from an experiment file."
        )
    from lit_eve import run as running

    if going_on:
        running.resume(RunDirectory(file.absolute()), data, stage, _console())
        return
    console = _console()
    running.start(
        file, overrides or (), tiny=tiny, runs=runs, data=data, first=stage, console=console
    )


@app.command()
def resume(
    run: Run,
    stage: Annotated[str | None, typer.Option(help="Stage to start at.")] = None,
    runs: Runs = RUNS,
    data: Data = DATA,
) -> None:
    """Go on with a run exactly where it stopped."""
    from lit_eve.run_directory import find

    directory = find(run, runs)
    from lit_eve import run as running

    running.resume(directory, data, stage, _console())


@app.command()
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
    from lit_eve.run_directory import find

    directory = find(run, runs)
    from lit_eve.evaluate import evaluate_run

    evaluate_run(directory, stage, questions, data, _console())
    print(f"next  lit-eve generate {run} --image FILE --prompt TEXT")


@app.command()
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
    from lit_eve.run_directory import find

    directory = find(run, runs)
    from lit_eve.evaluate import Request, answer

    request = Request(prompt, image or (), max_new_tokens, temperature, top_p, seed)
    print(answer(directory, stage, data, request))


@app.command()
def ui(
    uri: Annotated[str, typer.Option(help="The store.")] = "sqlite:///mlflow.db",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 5000,
) -> None:
    """Open the MLflow UI on the right store."""
    from lit_eve.tracking.ui import serve

    serve(uri, port)


@app.command()
def sync(
    run: Run,
    uri: Annotated[str | None, typer.Option(help="The store; the experiment's if absent.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Send to the tracker what it does not have yet of a run."""
    from lit_eve.run_directory import find
    from lit_eve.schema import load
    from lit_eve.schema.running import MLflowTracking
    from lit_eve.tracking.shipper import sync as send

    directory = find(run, runs)
    tracking = load(directory.experiment_file).tracking
    store = uri or (tracking.uri.resolved() if isinstance(tracking, MLflowTracking) else None)
    if store is None:
        raise ValueError("the experiment says `tracking: {type: none}`. Name a store with --uri.")
    print(send(directory.path, store))


@app.command()
def schema(
    to: Annotated[Path, typer.Option(help="File to write.")] = Path("experiments/schema.json"),
) -> None:
    """Write the JSON Schema by which editors complete and check experiment files."""
    import json

    from lit_eve.schema.json_schema import json_schema

    to.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {to}")


@app.command(name="runs")
def list_runs(runs: Runs = RUNS) -> None:
    """List runs: status, stage, best score, duration."""
    from rich.table import Table

    from lit_eve.tracking.liveness import mark_crashed
    from lit_eve.tracking.runs import list_runs as find_runs

    mark_crashed(runs)
    table = Table("experiment", "run", "status", "stage", "best", "minutes")
    for row in find_runs(runs):
        best = "" if row.best is None else f"{row.metric} {row.best:.3f}"
        minutes = f"{row.seconds / 60:.1f}"
        table.add_row(
            row.experiment, row.directory.name, row.status, row.stage or "", best, minutes
        )
    _console().print(table)
