"""Words that several verbs share, and the terminal they speak to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

File = Annotated[Path, typer.Argument(help="Experiment file.", metavar="EXPERIMENT")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes, such as stages.learn.batch=64.")
]
Changes = Annotated[
    list[str] | None, typer.Argument(help="Changes of hardware, such as hardware.devices=2.")
]
Tiny = Annotated[bool, typer.Option(help="Shrink it: any CPU, under a minute.")]
Run = Annotated[str, typer.Argument(help="A run: its folder, id or experiment.", metavar="RUN")]
Runs = Annotated[Path, typer.Option(help="Where runs are kept.", envvar="LIT_EVE_RUNS")]
Data = Annotated[Path, typer.Option(help="Where prepared data is kept.", envvar="LIT_EVE_DATA")]
RUNS, DATA = Path("runs"), Path("datasets")


def console(stderr: bool = False) -> Console:
    """The terminal; rich is imported when there is something to say."""
    from rich.console import Console

    return Console(stderr=stderr)
