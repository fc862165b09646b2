"""The command line: verbs only. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

import typer

from lit_eve.cli import (
    bring,
    codes,
    compare,
    data,
    declare,
    export,
    scale,
    start,
    track,
    train,
    tune,
    use,
    words,
)

app = typer.Typer(
    name="lit-eve",
    help="Vision-language models that see without a vision encoder: one YAML, one command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

VERBS: Mapping[str, Callable[..., None]] = {
    "new": start.new,
    "ls": start.ls,
    "check": declare.check,
    "plan": declare.plan,
    "run": train.run,
    "resume": train.resume,
    "search": tune.search,
    "worker": tune.worker,
    "submit": scale.submit,
    "evaluate": use.evaluate,
    "generate": use.generate,
    "chat": use.chat,
    "export": export.export,
    "encode": codes.encode,
    "decode": codes.decode,
    "consolidate": scale.consolidate,
    "prepare": data.prepare,
    "runs": track.list_runs,
    "diff": compare.diff,
    "table": compare.table,
    "ui": track.ui,
    "sync": track.sync,
    "schema": declare.schema,
}
"""Every verb, in the order of `lit-eve --help`."""

for _name, _verb in VERBS.items():
    app.command(name=_name)(_verb)
app.add_typer(bring.app, name="import")
app.add_typer(data.app, name="data")


IN_WORDS = ("SearchError", "SyncError", "ServerError", "RunDeletedError")
"""Errors of the surroundings that say all that there is to say; by name, to import nothing."""


def main() -> None:
    """Run the command line; what a user can mend is said in words, not as a traceback."""
    _keep_bytecode()
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(_explain(error))


def _keep_bytecode() -> None:
    """Let Python keep what it compiles, here and in every process that a run starts.

    Container images often forbid it. Then each process compiles the four thousand modules behind
    torch anew, which takes longer than everything else that a short command does.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _explain(error: Exception) -> int:
    """Print what happened; the exit code."""
    terminal = words.console(stderr=True)
    if isinstance(error, ValueError) and hasattr(error, "problems"):  # the schema is not imported
        from lit_eve.schema.report import Report

        terminal.print(Report("the experiment", None, error.problems).text(True), soft_wrap=True)
        return 2
    name = getattr(error, "name", None)
    if type(error).__name__ in ("RunInterrupted", "SearchStopped") and isinstance(name, str):
        terminal.print(f"stopped by {name}; everything up to this step is saved")
        return 130 if name == "SIGINT" else 143
    terminal.print(f"[red]error[/red] {_escaped(str(error))}", highlight=False, soft_wrap=True)
    if not isinstance(error, ValueError) and type(error).__name__ not in IN_WORDS:
        terminal.print_exception()
    return 1


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
