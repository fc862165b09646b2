"""Verbs that bring in what others have trained: `lit-eve import KIND SOURCE TARGET`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from lit_eve.cli.words import console

app = typer.Typer(
    help="Bring a published checkpoint in, every tensor accounted for.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(help="The checkpoint's folder.")]
Target = Annotated[Path, typer.Argument(help="The folder to write; it works like a run's.")]
Side = Annotated[
    int | None, typer.Option(help="Size of pictures in pixels; the checkpoint's own if absent.")
]


@app.command(name="eve-v1")
def eve_v1(
    source: Source,
    target: Target,
    side: Side = None,
    pool: Annotated[int, typer.Option(help="Side in patches of a visual token's window.")] = 2,
    alignment: Annotated[
        bool, typer.Option(help="Take the patch alignment along, to train on with the teacher.")
    ] = False,
) -> None:
    """EVE-7B, EVE-7B-HD and their pretraining (Diao et al. 2024), safetensors or torch files."""
    from lit_eve.importing.eve_run import import_eve

    report = import_eve(source, target, "eve-v1", side=side, pool=pool, alignment=alignment)
    _say(report.lines(), target)


@app.command(name="eve-v2")
def eve_v2(source: Source, target: Target, side: Side = None) -> None:
    """EVE-7B-HD-v2.0 (Diao et al. 2025): both sets of weights, safetensors or torch files."""
    from lit_eve.importing.eve_run import import_eve

    _say(import_eve(source, target, "eve-v2", side=side).lines(), target)


@app.command(name="dalle-dvae")
def dalle_dvae(
    encoder: Annotated[Path, typer.Argument(help="encoder.pkl, or its state dict.")],
    decoder: Annotated[Path, typer.Argument(help="decoder.pkl, or its state dict.")],
    target: Target,
) -> None:
    """DALL-E's image tokenizer as OpenAI released it; nothing in the files is executed."""
    from lit_eve.importing.dalle_run import import_dalle_dvae

    size = import_dalle_dvae(encoder, decoder, target)
    print(f"{size.num_codes} codes of width {size.code_width}; {size.width} x {size.blocks} blocks")
    print(f"next    lit-eve encode {target} PICTURES --to codes.safetensors")


@app.command(name="exported")
def exported(source: Source, target: Target) -> None:
    """A model that `lit-eve export` wrote, to ask or to train on."""
    from lit_eve.importing.exported import import_exported

    import_exported(source, target)
    print(f"wrote {target}: it works like a finished run's folder")
    print(f"next  lit-eve generate {target} --image FILE --prompt TEXT, or train on: a file in")
    print(
        f"      {target.parent} with `extends: {target.name}/experiment.yaml` and stages of its own"
    )


def _say(lines: Iterable[str], target: Path) -> None:
    terminal = console()
    for line in lines:
        terminal.print(line, highlight=False, soft_wrap=True)
    print(f"names   {target / 'import.json'}")
    print(f"next    lit-eve generate {target} --image FILE --prompt TEXT")
