"""Verbs of image tokenizers: pictures to files of codes, and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import RUNS, Run, Runs, console

Stage = Annotated[str | None, typer.Option(help="Its weights; the last one's if absent.")]
Batch = Annotated[int, typer.Option(help="Pictures at a time.", min=1)]
CODES = Path("codes.safetensors")


def encode(
    run: Run,
    images: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
    to: Annotated[Path, typer.Option(help="File of codes to write.")] = CODES,
    fit: Annotated[
        str, typer.Option(help="Sizes that are no whole cells: exact (an error), crop or resize.")
    ] = "exact",
    batch: Batch = 16,
    stage: Stage = None,
    runs: Runs = RUNS,
) -> None:
    """Turn pictures into the codes of a trained image tokenizer."""
    if fit not in ("exact", "crop", "resize"):
        raise ValueError(f"--fit {fit} is unknown. Choose exact, crop or resize.")
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.inference.encode import encode_files, pictures_in, save_codes
    from lit_eve.inference.opening import open_tokenizer
    from lit_eve.running.progress import progress_line

    files = pictures_in(images)
    to.parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    with progress_line(console(), "encoding", "pictures") as bar:
        bar(0, len(files))
        encoded = encode_files(
            open_tokenizer(directory, stage),
            files,
            fit,  # type: ignore[arg-type]
            batch,
            lambda done, _: bar(done, len(files)),
        )
    save_codes(encoded, to)
    codes = sum(part.numel() for part in encoded.codes)
    print(f"wrote {to}: {codes} codes of {len(files)} pictures")
    print(f"next  lit-eve decode {run} {to} --to FOLDER")


def decode(
    run: Run,
    codes: Annotated[Path, typer.Argument(help="File that `encode` wrote.")],
    to: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("decoded"),
    batch: Batch = 16,
    stage: Stage = None,
    runs: Runs = RUNS,
) -> None:
    """Turn a file of codes back into PNG pictures."""
    from lit_eve.running.directory import find

    directory = find(run, runs)
    from lit_eve.inference.encode import decode_images, load_codes
    from lit_eve.inference.opening import open_tokenizer
    from lit_eve.running.progress import progress_line

    encoded = load_codes(codes)
    tokenizer = open_tokenizer(directory, stage)
    to.mkdir(parents=True, exist_ok=True)
    count = len(encoded.codes)
    with progress_line(console(), "decoding", "pictures") as bar:
        bar(0, count)
        for number, (name, picture) in enumerate(decode_images(tokenizer, encoded, batch), 1):
            stem = re.sub(r"[^\w.-]", "_", Path(name).stem)
            picture.save(to / f"{number:0{len(str(count))}d}-{stem}.png")
            bar(number, count)
    print(f"wrote {count} pictures to {to}")
