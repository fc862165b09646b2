"""Verbs about data: bring your own, look at it, prove that it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import console

app = typer.Typer(help="Look at a prepared dataset, or prove it whole.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="A prepared dataset.", metavar="DIR")]


def prepare(
    source: Annotated[Path, typer.Argument(help="A file or a folder of files.")],
    to: Annotated[Path, typer.Option(help="Folder of the dataset; a new one.")],
    kind: Annotated[
        str | None,
        typer.Option("--type", help="llava, coco, webdataset, parquet, folder or text; else seen."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures a JSON names; else the JSON's own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first inputs.")] = None,
    max_side: Annotated[
        int | None, typer.Option(help="Scale longer pictures down to this many pixels.")
    ] = None,
    held_out: Annotated[str, typer.Option(help="Share kept from training, as `val`.")] = "1%",
    max_rejects: Annotated[str, typer.Option(help="Stop above this share of bad inputs.")] = "1%",
    decode: Annotated[
        bool, typer.Option(help="Decode every pixel while checking: thorough and slow.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes; as many as cores, at most 8, if absent.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order, and of what is held out.")] = 0,
) -> None:
    """Turn your pictures and texts into a dataset to train on."""
    options = {
        "held_out": _share(held_out, "--held-out"),
        "limit": limit,
        "max_side": max_side,
        "decode": decode,
        "seed": seed,
    }
    most = _share(max_rejects, "--max-rejects")
    from lit_eve.running.bars import progress_line
    from lit_eve_data.preparing.prepare import prepare as prepare_source
    from lit_eve_data.sources import FileOptions, source_at
    from lit_eve_data.viewing.inspection import summary

    found = source_at(source, FileOptions(**options), kind, images)  # type: ignore[arg-type]
    terminal = console()
    with progress_line(terminal, f"preparing {to.name}", "samples") as bar:
        prepare_source(found, to, bar, most, workers)
    terminal.print(summary(to), highlight=False, markup=False, soft_wrap=True)
    print(f"next  lit-eve data inspect {to}; in an experiment: {{type: litdata, path: {to}}}")


@app.command()
def inspect(
    directory: Directory,
    page: Annotated[
        Path | None, typer.Option(help="HTML file to write, with samples to look at.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Samples on the page.")] = 24,
) -> None:
    """Count what is in a dataset: kinds, sizes, lengths, rejects; and show samples."""
    from lit_eve_data.viewing.inspection import sample_page, summary

    console().print(summary(directory), highlight=False, markup=False, soft_wrap=True)
    if page is None:
        print(f"next  lit-eve data inspect {directory} --page samples.html")
        return
    page.write_text(sample_page(directory, samples), encoding="utf-8")
    print(f"wrote {page}")


@app.command()
def verify(directory: Directory) -> None:
    """Read every byte of a dataset and compare it with what was prepared."""
    from lit_eve.running.bars import progress_line
    from lit_eve_data.disk.manifest import verify as verify_files

    with progress_line(console(), f"verifying {directory.name}", "bytes") as bar:
        manifest = verify_files(directory, bar)
    count = sum(split.samples for split in manifest.splits.values())
    print(f"{count:,} samples in {manifest.num_bytes:,} bytes are as they were prepared")


def _share(text: str, option: str) -> float:
    """A share written as `1%` or `0.01`."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{option} is {text!r}: write a share such as 1% or 0.01.")
    return share
