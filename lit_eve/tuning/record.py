"""The search in the tracker: a parent run with its table, its report, and its best experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from lit_eve.schema.running import MLflowTracking
from lit_eve.tracking.environment import git_tags, snapshot
from lit_eve.tracking.markdown import table
from lit_eve.tracking.runs import objective
from lit_eve.tracking.searches import SEARCH_FOLDER
from lit_eve.tracking.shipper import Shipper, start_shipper
from lit_eve.tracking.spool import Spool
from lit_eve.tuning import report
from lit_eve.tuning.slots import Slots
from lit_eve.tuning.study import Searching

TOP = 5


class Record:
    """Records a search while it runs; statuses are true in the end."""

    def __init__(self, searching: Searching, say: Callable[[str], None]) -> None:
        """Args: the search, and who is told what happens."""
        self.searching, self._say = searching, say
        self._shipper: Shipper | None = None
        self._seen: set[int] = set()

    def __enter__(self) -> Record:
        """Open the parent run."""
        place, search = self.searching.place, self.searching.search
        tags = {"mlflow.runName": f"search {self.searching.name}", "lit_eve.kind": "search"}
        name, direction = search.objectives[0]
        environment = snapshot()
        self.spool = Spool(
            place.folder / "tracking",
            rank=0,
            tags=tags | objective(name, direction) | git_tags(environment["git"]),
        )
        self.spool.status("RUNNING")
        self.spool.about(place.experiment.question or f"Search {self.searching.name}.")
        if not self.spool.known_params:  # a search that goes on may have more trials by now
            count = len(self.searching.trials.trials())
            self.spool.params({"sampler": search.sampler, "seed": search.seed, "trials": count})
        self.spool.note(self._note(None))
        self.spool.artifact(place.folder / "search.yaml", "config")
        tracking = place.experiment.tracking
        if isinstance(tracking, MLflowTracking):
            self._shipper = start_shipper(place.folder, tracking.uri.resolved())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it with what became of the search."""
        if error is None:
            self.spool.status("FINISHED")
        elif type(error).__name__ == "SearchStopped":
            self.spool.status("KILLED")
        else:
            self.spool.status("FAILED")
        self.spool.close()
        if self._shipper is not None and not self._shipper.finish(say=self._say):
            store, folder = self._shipper.store.shown, self.searching.place.folder
            self._say(f"not all of it is in MLflow yet ({store}); nothing is lost. Send it:")
            self._say(f"  lit-eve sync {folder}")

    def update(self, files: Sequence[Path], reruns: Slots | None) -> None:
        """Record the trials that have ended, and the report and best experiment anew."""
        name, direction = self.searching.search.objectives[0]
        better = max if direction == "maximize" else min
        ended = [t for t in self.searching.trials.trials() if t.state.name == "COMPLETE"]
        ended.sort(key=lambda trial: (str(trial.datetime_complete), trial.number))
        best: float | None = None
        for step, trial in enumerate(ended, 1):
            value = float(trial.values[0])
            best = value if best is None else better(best, value)
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                values = {f"search/{_plain(name)}": value, f"search/best_{_plain(name)}": best}
                self.spool.metrics(values, step)
        self.spool.note(self._note(reruns))
        for file in files:
            self.spool.artifact(file)

    def _note(self, reruns: Slots | None) -> str:
        """Verdict first: the list of runs shows the beginning."""
        searching = self.searching
        experiment, file = searching.place.experiment, searching.place.file
        parts = [f"**{report.verdict(searching)}**", experiment.question or ""]
        rows = list(report.cells(searching))[: TOP + 1]
        if len(rows) > 1:
            parts.append(table(rows))
        again = report.rerun_cells(searching, reruns)
        if again:
            parts += ["The best, with more seeds:", table(again)]
        parts.append(
            f"Plots: `{report.REPORT_FILE}` among the artifacts. Trials: the child runs, beside "
            f"`{SEARCH_FOLDER}` in `{searching.place.root.name}/`."
        )
        parts.append(f"`lit-eve search {file} --report` · `lit-eve worker {file}`")
        return "\n\n".join(part for part in parts if part)


def _plain(metric: str) -> str:
    return metric.replace("/", "_")
