"""What a search does with its words, tried on runs that cost nothing."""

from __future__ import annotations

import math
import signal

import pytest

from lit_eve.schema import Experiment, load
from lit_eve.tracking.liveness import last_status
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from lit_eve.tuning.figures import figures
from lit_eve.tuning.slots import REASON, TWIN
from lit_eve.tuning.storage import StorageError
from lit_eve.tuning.study import Searching
from tests.tuning.conftest import STEPS, Bench, Curve, Values, card, loss, stopped_as

KL = '"model.quantizer.kl.to": {range: [0.01, 1.0]}'
RATE = '"stages.train.train.quantizer": {log: [1e-4, 1e-2]}'
CODES = '"model.quantizer.codes": {log: [64, 256]}'
VALUES = [(number + 1) / 100 for number in range(12)]
TWELVE = f'space={{"model.quantizer.kl.to": {VALUES}}}'
DEPTH = '"model.encoder.multipliers": {choices: {shallow: [1, 2], deep: [1, 2, 4]}}'


def states(searching: Searching) -> list[str]:
    return [trial.state.name for trial in searching.trials.trials()]


def experiment(searching: Searching, number: int) -> Experiment:
    return load(searching.directory(number) / "experiment.yaml")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2", "random"])
def test_every_sampler_fills_all_slots_from_the_space(bench: Bench, sampler: str) -> None:
    startup = [] if sampler == "random" else ["startup=3"]
    words = ["trials=7", "minimize=val/loss", f"sampler={sampler}", *startup]
    searching = bench.search(*words, f"space={{{KL}, {RATE}, {CODES}}}")
    assert states(searching) == ["COMPLETE"] * 7
    for trial in searching.trials.trials():
        kl, rate, codes = (trial.params[key] for key in searching.search.space)
        assert 0.01 <= kl <= 1
        assert 1e-4 <= rate <= 1e-2
        assert isinstance(codes, int)
        assert 64 <= codes <= 256
        assert trial.values == [pytest.approx(kl + 1 / (1 + STEPS))]
        if TWIN not in trial.user_attrs:  # evolution may breed a setting again
            assert loss(experiment(searching, trial.number)) == kl
    if sampler != "nsga2":
        assert len(bench.launched) == 7


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2"])
def test_the_same_seed_draws_the_same_settings_again(bench: Bench, sampler: str) -> None:
    words = ["trials=5", "minimize=val/loss", f"sampler={sampler}", "startup=3"]
    drawn = []
    for name in ("first", "second"):
        searching = bench.search(*words, f"space={{{KL}, {RATE}}}", name=name)
        drawn.append([trial.params for trial in searching.trials.trials()])
    assert drawn[0] == drawn[1]


def test_a_grid_tries_every_combination_once(bench: Bench) -> None:
    steps = '"model.quantizer.codes": {range: [64, 128], step: 32}'
    searching = bench.search("sampler=grid", "minimize=val/loss", f"space={{{DEPTH}, {steps}}}")
    drawn = {tuple(trial.params.values()) for trial in searching.trials.trials()}
    assert drawn == {(d, c) for d in ("shallow", "deep") for c in (64, 96, 128)}
    assert states(searching) == ["COMPLETE"] * 6


class TestPruning:
    """Trials get worse by number: 0.01, 0.02, ... 0.12."""

    @pytest.mark.parametrize(
        "prune",
        [
            "{type: median, startup: 3, after: 2}",
            "{type: hyperband, after: 1, keep: 2}",
            "{type: wilcoxon, p: 0.1, reports: 3}",
        ],
    )
    def test_bad_trials_end_early_and_the_best_does_not(self, bench: Bench, prune: str) -> None:
        searching = bench.search("sampler=grid", "minimize=val/loss", f"prune={prune}", TWELVE)
        assert states(searching)[0] == "COMPLETE"
        pruned = [t for t in searching.trials.trials() if t.state.name == "PRUNED"]
        assert pruned
        for trial in pruned:
            assert trial.last_step is not None
            assert trial.last_step < STEPS
            assert stopped_as(searching.directory(trial.number)) == "pruned"
        [best] = searching.best()
        assert best.number == 0

    def test_a_run_that_a_signal_found_outside_its_training_is_no_failure(
        self, bench: Bench
    ) -> None:
        prune = "prune={type: median, startup: 3, after: 2}"
        searching = bench.search("sampler=grid", "minimize=val/loss", prune, TWELVE)
        [number, *_] = [t.number for t in searching.trials.trials() if t.state.name == "PRUNED"]
        for folder in (searching.directory(number), searching.directory(number) / "train"):
            assert last_status(folder / "tracking") == "FINISHED"
            *_, (last, _) = read_events(folder / "tracking" / EVENTS_FILE)
            assert last["v"] == {"lit_eve.state": "pruned"}

    def test_steps_before_the_first_are_not_judged(self, bench: Bench) -> None:
        prune = f"prune={{type: median, startup: 2, after: {STEPS + 1}}}"
        searching = bench.search("sampler=grid", "minimize=val/loss", prune, TWELVE)
        assert states(searching) == ["COMPLETE"] * 12


class TestPatience:
    @pytest.fixture
    def curve(self) -> Curve:
        """Best at step 3 and worse afterwards, but for the best setting."""

        def values(experiment: Experiment, step: int) -> Values:
            late = max(0, step - 3) if loss(experiment) > 0.01 else 0
            return {"val/loss": loss(experiment) + 1 / (1 + step) + late}

        return values

    def test_a_trial_that_learns_nothing_more_ends(self, bench: Bench) -> None:
        prune = "prune={type: patient, reports: 2}"
        searching = bench.search("sampler=grid", "minimize=val/loss", prune, TWELVE)
        assert states(searching) == ["COMPLETE"] + ["PRUNED"] * 11


class TestSeveralObjectives:
    @pytest.fixture
    def curve(self) -> Curve:
        """Two that pull apart up to 0.06, and both get worse above."""

        def values(experiment: Experiment, step: int) -> Values:
            kl = loss(experiment)
            return {"val/one": kl, "val/two": abs(0.06 - kl)}

        return values

    def test_their_best_is_a_front(self, bench: Bench) -> None:
        searching = bench.search("sampler=grid", "minimize=[val/one, val/two]", TWELVE)
        assert [trial.number for trial in searching.best()] == [0, 1, 2, 3, 4, 5]

    def test_the_report_begins_with_their_front(self, bench: Bench) -> None:
        searching = bench.search("sampler=grid", "minimize=[val/one, val/two]", TWELVE)
        title, svg = next(figures(searching.trials.study, ["val/one", "val/two"]))
        assert title == "The front"
        assert svg.startswith("<svg")

    def test_directions_are_each_objectives_own(self, bench: Bench) -> None:
        words = ["minimize=val/two", "maximize=val/one", "sampler=grid"]
        searching = bench.search(*words, TWELVE)
        assert [trial.number for trial in searching.best()] == [5, 6, 7, 8, 9, 10, 11]

    def test_nsga2_and_tpe_propose_for_two(self, bench: Bench) -> None:
        for name in ("nsga2", "tpe"):
            words = ["trials=6", "startup=3", f"sampler={name}", "minimize=[val/one, val/two]"]
            searching = bench.search(*words, f"space={{{KL}}}", name=name)
            assert states(searching) == ["COMPLETE"] * 6


class TestRequirements:
    @pytest.fixture
    def curve(self) -> Curve:
        """The smallest losses come from dead codebooks."""
        return lambda experiment, step: {
            "val/loss": loss(experiment),
            "codebook/usage": 10 * loss(experiment),
        }

    def test_who_fails_what_is_required_is_never_the_best(self, bench: Bench) -> None:
        require = "require={codebook/usage: {above: 0.55}}"
        searching = bench.search("sampler=grid", "minimize=val/loss", require, TWELVE)
        [best] = searching.best()
        assert best.number == 5
        assert best.constraints == {"codebook/usage above": pytest.approx(-0.05)}
        assert searching.trials.trials()[0].constraints["codebook/usage above"] > 0

    def test_a_requirement_that_nothing_meets_leaves_no_best(self, bench: Bench) -> None:
        require = "require={codebook/usage: {above: 5}}"
        searching = bench.search("sampler=grid", "minimize=val/loss", require, TWELVE)
        assert states(searching) == ["COMPLETE"] * 12
        assert searching.best() == []


def test_a_conditional_value_is_drawn_only_where_its_condition_holds(bench: Bench) -> None:
    child = (
        '"model.quantizer.kl.to": {range: [0.01, 0.05], when: {model.encoder.multipliers: deep}}'
    )
    words = ["trials=8", "sampler=random", "minimize=val/loss"]
    searching = bench.search(*words, f"space={{{DEPTH}, {child}}}")
    for trial in searching.trials.trials():
        assert ("model.quantizer.kl.to" in trial.params) == (
            trial.params["model.encoder.multipliers"] == "deep"
        )
    shallow = [t.number for t in searching.trials.trials() if len(t.params) == 1]
    assert shallow
    assert loss(experiment(searching, shallow[0])) == 0.1  # as the file has it


def test_known_points_are_tried_first_and_the_rest_of_them_is_drawn(bench: Bench) -> None:
    first = "first=[{model.quantizer.kl.to: 0.25}, {model.quantizer.kl.to: 0.75}]"
    words = ["trials=4", "minimize=val/loss", first]
    searching = bench.search(*words, f"space={{{KL}, {RATE}}}")
    drawn = [trial.params["model.quantizer.kl.to"] for trial in searching.trials.trials()]
    assert drawn[:2] == [0.25, 0.75]
    assert all(len(trial.params) == 2 for trial in searching.trials.trials())


def test_the_best_are_run_again_with_other_seeds_and_more_time(bench: Bench) -> None:
    then = "then={rerun: best 2, seeds: [5, 6, 7], for: 6400 samples}"
    searching = bench.search("sampler=grid", "minimize=val/loss", then, TWELVE)
    reruns = searching.reruns()
    assert reruns is not None
    assert [trial.state.name for trial in reruns.trials()] == ["COMPLETE"] * 6
    assert bench.launched[12:] == [f"best-{r}-seed-{s}" for r in (1, 2) for s in (5, 6, 7)]
    for rerun in reruns.trials():
        directory = searching.rerun_directory(rerun)
        again = load(directory / "experiment.yaml")
        assert (again.seed, str(again.trained["train"].budget)) == (
            rerun.user_attrs["seed"],
            "6400 samples",
        )
        assert loss(again) == rerun.user_attrs["rank"] / 100
        assert card(directory)["kind"] == "rerun"


def test_the_same_setting_is_not_run_twice(bench: Bench) -> None:
    space = 'space={"model.quantizer.codes": [64, 128]}'
    searching = bench.search("trials=6", "sampler=random", "minimize=val/loss", space)
    assert states(searching) == ["COMPLETE"] * 6
    assert len(bench.launched) == len(
        {t.params["model.quantizer.codes"] for t in searching.best(6)}
    )
    assert sum(TWIN in trial.user_attrs for trial in searching.trials.trials()) == 4


class TestFailures:
    """Whatever happens to a run, the search goes on and says why."""

    @pytest.fixture
    def curve(self) -> Curve:
        """NaN for the second setting, infinite for the third, no metric for the fourth."""

        def values(experiment: Experiment, step: int) -> Values:
            number = round(100 * loss(experiment)) - 1
            odd = {1: math.nan, 2: math.inf}
            return {"val/psnr" if number == 3 else "val/loss": odd.get(number, 1.0 + number)}

        return values

    def test_what_cannot_be_compared_fails_with_its_reason(self, bench: Bench) -> None:
        bench.codes |= {"trial-004": [1], "trial-005": [-signal.SIGKILL] * 2}
        searching = bench.search("sampler=grid", "minimize=val/loss", TWELVE)
        reasons = {t.number: t.user_attrs.get(REASON) for t in searching.trials.trials()}
        assert states(searching) == ["COMPLETE"] + ["FAIL"] * 5 + ["COMPLETE"] * 6
        assert reasons == dict.fromkeys((0, *range(6, 12))) | {
            1: "val/loss is nan",
            2: "val/loss is inf",
            3: "the run never recorded val/loss; held-out metrics: val/psnr",
            4: "the model is too large",
            5: "killed by SIGKILL 2 times: it may need more memory than there is",
        }
        assert bench.launched.count("trial-005") == 2

    def test_a_run_that_was_killed_once_goes_on_and_counts(self, bench: Bench) -> None:
        bench.codes["trial-000"] = [-signal.SIGKILL]
        searching = bench.search("sampler=grid", "minimize=val/loss", TWELVE)
        assert states(searching)[0] == "COMPLETE"
        assert bench.launched.count("trial-000") == 2

    def test_a_run_that_takes_too_long_fails(self, bench: Bench) -> None:
        searching = bench.search("sampler=grid", "minimize=val/loss", "minutes=1e-9", TWELVE)
        assert set(states(searching)) == {"FAIL"}
        assert stopped_as(searching.directory(0)) == "timeout"


@pytest.mark.parametrize(
    ("words", "changes", "told"),
    [
        (("minimize=val/loss", f"space={{{KL}}}"), {}, "space.stages.train.train.quantizer"),
        (("maximize=val/loss", f"space={{{KL}, {RATE}}}"), {}, "maximize"),
        (("minimize=val/loss", f"space={{{KL}, {RATE}}}"), {"seed": "3"}, "seed"),
    ],
)
def test_a_storage_of_another_search_is_refused_with_what_differs(
    bench: Bench, words: tuple[str, ...], changes: dict[str, str], told: str
) -> None:
    bench.search("trials=2", "minimize=val/loss", f"space={{{KL}, {RATE}}}")
    with pytest.raises(StorageError, match=told):
        bench.search("trials=2", *words, **changes)


def test_more_trials_go_on_with_the_same_search(bench: Bench) -> None:
    for trials in (2, 5):
        searching = bench.search(f"trials={trials}", "minimize=val/loss", f"space={{{KL}}}")
    assert states(searching) == ["COMPLETE"] * 5
    assert bench.launched == [f"trial-{number:03d}" for number in range(5)]


def test_a_worker_without_a_search_says_how_to_start_one(bench: Bench) -> None:
    place = bench.place("trials=2", "minimize=val/loss", f"space={{{KL}}}")
    with pytest.raises(StorageError, match="Start it first: lit-eve search"):
        Searching(place, create=False)
