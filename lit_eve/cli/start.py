"""Verbs to begin with: what there is, and a file of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import console

FOLDER = Path("experiments")


def ls(
    what: Annotated[
        str | None, typer.Argument(help="A family, such as quantizers; all if left out.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where experiment files are.")] = FOLDER,
) -> None:
    """List what files can name, and the experiments there are."""
    from rich.table import Table

    from lit_eve.schema.catalogue import FAMILIES, experiments, tasks, types

    files = {"experiments": experiments, "tasks": tasks}
    families = [*FAMILIES, *files]
    if what is not None and what not in families:
        raise ValueError(f"there is no family {what!r} to list. Families: {', '.join(families)}.")
    terminal = console()
    for family in [what] if what else families:
        table = Table(title=family, title_justify="left", box=None, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        for entry in files[family](folder) if family in files else types(family):
            table.add_row(entry.name, entry.about)
        terminal.print(table)
    print("next  lit-eve new NAME, or lit-eve check FILE")


def new(
    name: Annotated[str, typer.Argument(help="Its name: letters, digits, - and _.")],
    like: Annotated[
        Path | None, typer.Option(help="Start from this experiment, changing what you write.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = FOLDER,
) -> None:
    """Write a commented experiment file to start from."""
    from lit_eve.schema.starting import new_file

    file = new_file(name, folder, like)
    print(f"wrote {file}\nnext  lit-eve check {file}")
