"""Verbs about data: bring your own, look at it, prove that it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lit_eve.cli.words import DATA, Data, File, Overrides, Tiny, console

if TYPE_CHECKING:
    from lit_eve_data.preparing.prepare import Preparing
    from lit_eve_data.sources import Source

app = typer.Typer(help="Look at a prepared dataset, or prove it whole.", no_args_is_help=True)

Directory = Annotated[
    str, typer.Argument(help="A prepared dataset: a folder or a URL.", metavar="DIR")
]


def prepare(
    source: Annotated[Path, typer.Argument(help="A file or a folder of files.")],
    to: Annotated[str, typer.Option(help="Folder or URL (s3://...) of the dataset.")],
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
        bool, typer.Option(help="Decode every picture once, to refuse those broken inside.")
    ] = True,
    append: Annotated[bool, typer.Option(help="Add to a dataset that is there.")] = False,
    teacher: Annotated[
        str | None, typer.Option(help="Keep this vision model's features, too: hf:NAME, folder.")
    ] = None,
    teacher_layer: Annotated[int, typer.Option(help="Its hidden state to keep.")] = -2,
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
    if teacher is not None and "://" in to:
        raise ValueError("--teacher needs a folder for --to: prepare here, or leave it out.")
    from lit_eve_data.preparing.prepare import Preparing
    from lit_eve_data.sources import FileOptions, source_at

    found = source_at(source, FileOptions(**options), kind, images)  # type: ignore[arg-type]
    _prepare(found, to, Preparing(most, workers, append))
    if teacher is not None:
        _look(teacher, teacher_layer, Path(to))
    print(f"next  lit-eve data inspect {to}; in an experiment: {{type: litdata, path: {to}}}")


def _prepare(source: Source, to: str, options: Preparing) -> None:
    """To a folder or a URL, with bars, and say what came of it."""
    from lit_eve.running.bars import progress_line
    from lit_eve_data.disk.stores import is_remote
    from lit_eve_data.preparing.prepare import prepare as prepare_here
    from lit_eve_data.preparing.publishing import send, stage
    from lit_eve_data.viewing.inspection import summary

    terminal, name = console(), to.rstrip("/").rpartition("/")[2]
    with progress_line(terminal, f"preparing {name}", "samples") as bar:
        if is_remote(to):
            staged = stage(source, to, bar, options)
        else:
            staged = None
            prepare_here(source, Path(to), bar, options)
    if staged is not None:
        with progress_line(terminal, f"copying {name}", "bytes") as bar:
            send(staged, bar)
    terminal.print(summary(_folder(to)), highlight=False, markup=False, soft_wrap=True)


def _look(teacher: str, layer: int, dataset: Path) -> None:
    """Keep the features of a teacher beside the pictures."""
    from lit_eve.inference.seeing import look
    from lit_eve.running.bars import progress_line

    with progress_line(console(), "looking", "samples") as bar:
        folder = look(teacher, layer, dataset, bar)
    print(f"features in {folder}; to read them: model.teacher.stored=true")


def _folder(dataset: str) -> Path:
    """The folder of a dataset, or of what stands here for one at a URL."""
    from lit_eve_data.disk.elsewhere import local_copy
    from lit_eve_data.disk.stores import is_remote

    return local_copy(dataset) if is_remote(dataset) else Path(dataset)


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

    folder = _folder(directory)
    console().print(summary(folder), highlight=False, markup=False, soft_wrap=True)
    if page is None:
        print(f"next  lit-eve data inspect {directory} --page samples.html")
        return
    page.write_text(sample_page(folder, samples), encoding="utf-8")
    print(f"wrote {page}")


@app.command()
def verify(directory: Directory) -> None:
    """Read every byte of a dataset and compare it with what was prepared."""
    from lit_eve.running.bars import progress_line
    from lit_eve_data.disk.elsewhere import verify_at
    from lit_eve_data.disk.manifest import verify as verify_files
    from lit_eve_data.disk.stores import is_remote

    with progress_line(console(), f"verifying {directory}", "bytes") as bar:
        there = is_remote(directory)
        manifest = verify_at(directory, bar) if there else verify_files(Path(directory), bar)
    count = sum(split.samples for split in manifest.splits.values())
    print(f"{count:,} samples in {manifest.num_bytes:,} bytes are as they were prepared")


@app.command()
def show(
    file: File,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Stage; the first one if absent.")] = None,
    to: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("batch.png"),
    tiny: Tiny = False,
    data: Data = DATA,
) -> None:
    """Draw the first batch of a stage as the model will get it."""
    from lit_eve.running.show_batch import first_batch
    from lit_eve.schema import load

    name, picture = first_batch(load(file, overrides or (), tiny=tiny), stage, data, console())
    picture.save(to, "PNG")
    print(f"wrote {to}, the first batch of {name}")
    print(f"next  lit-eve run {file}")


def _share(text: str, option: str) -> float:
    """A share written as `1%` or `0.01`."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{option} is {text!r}: write a share such as 1% or 0.01.")
    return share
