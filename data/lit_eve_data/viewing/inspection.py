"""A prepared dataset for people: counts and histograms as text, samples as a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lit_eve_data.disk.manifest import read_manifest
from lit_eve_data.disk.reading import RecordStore
from lit_eve_data.disk.records import BadSampleError, Sample, StoredImage

_BARS = "▏▎▍▌▋▊▉█"
_SIDE = 240  # pixels of a picture on the page
_STYLE = (
    "body{font:14px sans-serif;margin:24px;background:#f6f7f9;color:#1f2733}"
    ".cards{display:flex;flex-wrap:wrap;gap:12px}"
    ".card{background:#fff;padding:12px;width:264px;overflow-wrap:anywhere}"
    "img{max-width:240px;display:block;margin-bottom:6px}"
    "small{color:#6b7686}.assistant{color:#26467a;font-weight:600}"
)


def summary(directory: Path) -> str:
    """Samples of every split and kind, rejects by reason, histograms of sizes and lengths.

    Raises:
        ValueError: if the directory is no whole dataset.
    """
    manifest = read_manifest(directory)
    lines = [f"{directory}  {manifest.num_bytes / 1e6:,.1f} MB  from {manifest.source['type']}"]
    for name, split in manifest.splits.items():
        facts = RecordStore(directory, name).sidecar
        lines.append(f"\n{name}  {split.samples:,} samples, {len(facts.sizes):,} images")
        lines += [f"  {count:>9,}  {kind}" for kind, count in sorted(split.kinds.items())]
        lines += [f"  {count:>9,}  rejected: {why}" for why, count in sorted(split.rejects.items())]
        if len(facts.sizes):
            lines += _histogram("longer side in pixels", facts.sizes.max(axis=1))
            ratio = facts.sizes.max(axis=1) / facts.sizes.min(axis=1).clip(1)
            lines += _histogram("longer side / shorter side", ratio)
        if facts.num_characters.any():
            lines += _histogram("characters of a sample", facts.num_characters)
    return "\n".join(lines)


def sample_page(directory: Path, count: int) -> str:
    """Samples spread evenly over a dataset's first split, as one HTML page with its pictures.

    Args:
        directory: the dataset.
        count: samples to show.

    Raises:
        ValueError: if the directory is no whole dataset, or there is nothing to show.
    """
    if count < 1:
        raise ValueError(f"{count} samples make no page: ask for one or more.")
    split = next(iter(read_manifest(directory).splits))
    store = RecordStore(directory, split)
    places = np.linspace(0, len(store) - 1, min(count, len(store))).round().astype(int)
    cards = "".join(_card(store, int(place)) for place in places)
    title = escape(f"{directory.name} · {split}")
    return (
        f"<!DOCTYPE html><html><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<pre>{escape(summary(directory))}</pre><div class='cards'>{cards}</div></body></html>"
    )


def _card(store: RecordStore, place: int) -> str:
    try:
        parts = list(_parts(store[place]))
    except BadSampleError as error:
        parts = [f"<p>cannot be read: {escape(str(error))}</p>"]
    return f"<div class='card'>{''.join(parts)}</div>"


def _parts(sample: Sample) -> Iterator[str]:
    for image in sample.images:
        yield f"<img src='{_inline(image)}' alt='{image.width} x {image.height}'>"
        yield f"<small>{image.width} x {image.height} {escape(image.format)}</small>"
    for turn in sample.turns:
        yield f"<p class='{escape(turn['role'])}'>{escape(turn['content'])}</p>"
    yield f"<small>{escape(sample.kind)} · {escape(sample.id)}</small>"


def _inline(stored: StoredImage) -> str:
    """The picture, small, as a data address."""
    picture = Image.fromarray(stored.pixels())
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _histogram(label: str, values: NDArray[np.generic], bins: int = 8) -> list[str]:
    """Bars of equal width in value, from the least to the largest."""
    numbers = values.astype(float)
    low, high = float(numbers.min()), float(numbers.max())
    lines = [f"  {label}: median {np.median(numbers):,.4g}, from {low:,.4g} to {high:,.4g}"]
    if low == high:
        return lines
    counts, edges = np.histogram(numbers, bins)
    for count, left in zip(counts.tolist(), edges[:-1].tolist(), strict=True):
        eighths = round(count / counts.max() * 24 * 8)
        rest = _BARS[eighths % 8 - 1] if eighths % 8 else ""
        lines.append(f"  {left:>9,.4g}  {'█' * (eighths // 8)}{rest} {count:,}")
    return lines
