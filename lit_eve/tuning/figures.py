"""A study in pictures: Optuna's own plots, drawn by matplotlib, each as one SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lit_eve.tuning.storage import quiet

if TYPE_CHECKING:
    from optuna import Study

FEWEST = 2
"""Complete trials that a plot needs to say anything."""
SIZE = (9.0, 4.6)
"""Inches."""
NAMED = 10
"""More lines than that are not told apart by a legend, which would only cover them."""
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def figures(study: Study, metrics: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Titles and SVG pictures of what a study can show by now.

    Args:
        study: its trials need not be finished.
        metrics: names of the objectives.
    """
    quiet()
    from optuna.visualization import matplotlib as plots

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.values]
    if len(complete) < FEWEST:
        return
    if len(metrics) > 1:
        if len(metrics) <= 3:
            yield from _drawn(
                "The front", lambda: plots.plot_pareto_front(study, target_names=list(metrics))
            )
        for number, name in enumerate(metrics):
            yield from _of_one(study, name, _value(number))
        return
    yield from _of_one(study, metrics[0], None)
    yield from _drawn("Values while they ran", lambda: plots.plot_intermediate_values(study))


def _value(number: int) -> Callable[[Any], float]:
    return lambda trial: float(trial.values[number])


def _of_one(
    study: Study, name: str, target: Callable[[Any], float] | None
) -> Iterator[tuple[str, str]]:
    from optuna.visualization import matplotlib as plots

    options: dict[str, Any] = {"target_name": name}
    if target is not None:
        options["target"] = target
    yield from _drawn(
        f"History of {name}", lambda: plots.plot_optimization_history(study, **options)
    )
    yield from _drawn(
        f"What matters for {name}", lambda: plots.plot_param_importances(study, **options)
    )
    yield from _drawn(
        f"Settings and {name}", lambda: plots.plot_parallel_coordinate(study, **options)
    )
    yield from _drawn(f"Each value and {name}", lambda: plots.plot_slice(study, **options))


def _drawn(title: str, plot: Callable[[], Any]) -> Iterator[tuple[str, str]]:
    """One plot; nothing where the study cannot give it yet."""
    import warnings

    import matplotlib.pyplot as plt

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = plot()
            first = axes if hasattr(axes, "figure") else axes.flat[0]
            figure = first.figure
            width = SIZE[0] if hasattr(axes, "figure") else max(SIZE[0], 3.2 * axes.size)
            figure.set_size_inches(width, SIZE[1])
            if (legend := first.get_legend()) is not None and len(legend.get_texts()) > NAMED:
                legend.remove()
            out = io.StringIO()
            figure.savefig(out, format="svg", bbox_inches="tight", metadata=_NO_METADATA)
    except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or all alike
        return
    finally:
        plt.close("all")
    yield title, _inline(out.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """The picture for an HTML page: its names made its own, since one page holds many."""
    body = svg[svg.index("<svg") :]
    mark = re.sub(r"\W", "", title)
    body = re.sub(r'\bid="', f'id="{mark}-', body)
    body = body.replace('xlink:href="#', f'xlink:href="#{mark}-')
    return body.replace("url(#", f"url(#{mark}-")
