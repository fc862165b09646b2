"""A colour for every run: MLflow's come from a hash, and two of three runs may look the same."""

from __future__ import annotations

import colorsys

_GOLDEN = 0.618033988749895
_FIRST_HUE = 0.58
_LIGHTNESS = (0.42, 0.6, 0.28)
_SATURATION = 0.65


def run_colour(index: int) -> str:
    """The colour of an experiment's run, `#rrggbb`.

    Hues are steps of the golden section around the circle, so each new one falls into the largest
    gap that the earlier ones left.
    """
    return _hex((_FIRST_HUE + index * _GOLDEN) % 1.0, _LIGHTNESS[0])


def stage_colour(run: str, index: int) -> str:
    """The colour of a run's stage: the run's hue, another lightness for each of three stages."""
    red, green, blue = (int(run.lstrip("#")[at : at + 2], 16) / 255 for at in (0, 2, 4))
    hue = colorsys.rgb_to_hls(red, green, blue)[0]
    return _hex(hue, _LIGHTNESS[index % len(_LIGHTNESS)])


def _hex(hue: float, lightness: float) -> str:
    parts = colorsys.hls_to_rgb(hue, lightness, _SATURATION)
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)
