from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve.tasks.tokenizer import TokenizerTask
from lit_eve.tasks.tokenizer_scores import counters
from lit_eve_callbacks.codebook import CodebookWatch, histogram
from tests.tokenizer_training import (
    Images,
    Records,
    fit,
    gumbel_task,
    saving,
    task,
    tokenizer,
    vector,
    vector_task,
)


def watch(module: TokenizerTask, every: int = 3, **options: object) -> CodebookWatch:
    return CodebookWatch(counters(module.model.quantizer), every, **options)  # type: ignore[arg-type]


def test_usage_is_that_of_all_codes_of_a_window() -> None:
    module, records = vector_task(), Records()
    codes: list[torch.Tensor] = []
    step = module.training_step

    def recording(batch: object, batch_idx: int) -> object:
        out = step(batch, batch_idx)  # type: ignore[arg-type]
        codes.append(out["codes"]["all"])
        return out

    module.training_step = recording  # type: ignore[method-assign, assignment]
    fit(module, [watch(module)], records)
    for window, end in ((codes[:3], 3), (codes[3:], 6)):
        used = len(torch.unique(torch.cat([c.flatten() for c in window])))
        assert records.of("codebook/usage")[end] == pytest.approx(used / 8)
        assert records.of("codebook/ceiling")[end] == pytest.approx(1 - (7 / 8) ** (3 * 2 * 48))
        assert records.of("codebook/dead")[end] == 8 - used
    assert set(records.of("codebook/quantization_error")) == {3, 6}
    assert records.of("codebook/replaced_codes") == {3: 0.0, 6: 0.0}


def test_each_stage_is_watched_on_its_own() -> None:
    module, records = task(tokenizer(ResidualQuantizer([vector(), vector()]))), Records()  # type: ignore[list-item]
    fit(module, [watch(module)], records)
    assert set(records.of("codebook/stage_1/usage")) == {3, 6}
    assert set(records.of("codebook/stage_2/perplexity")) == {3, 6}
    assert set(records.of("codebook/stage_2/quantization_error")) == {3, 6}


def test_an_unfinished_window_is_taken_up_again(tmp_path: Path) -> None:
    whole, cut = Records(), Records()
    module = vector_task()
    fit(module, [watch(module, every=4)], whole, max_steps=4)
    module = vector_task()
    fit(module, [watch(module, every=4), saving(tmp_path, 2)], max_steps=2)
    module, resume = vector_task(), tmp_path / "step=2.ckpt"
    fit(module, [watch(module, every=4), saving(tmp_path, 2)], cut, max_steps=4, resume=resume)
    assert whole.metrics[-1] == cut.metrics[-1]


def test_a_collapse_is_an_alarm_that_rings_once(caplog: pytest.LogCaptureFixture) -> None:
    module, records = vector_task(rate=0.0), Records()
    quantizer = module.model.quantizer
    assert isinstance(quantizer, VectorQuantizer)
    far = torch.full((7, 4), 1e3)  # all tokens are nearest to code 0
    quantizer.codebook.put(torch.arange(1, 8), far, torch.ones(7))
    with caplog.at_level(logging.WARNING):
        fit(module, [watch(module, every=2, collapsed_below=0.2)], records)
    assert records.of("codebook/collapsed") == {2: 1.0, 4: 1.0, 6: 1.0}
    rung = [r.message for r in caplog.records if "the codebook collapses" in r.message]
    assert len(rung) == 1
    assert "12.5%" in rung[0]
    assert "k-means" in rung[0]


def test_the_gradient_of_the_scores_tells_a_temperature_that_is_too_low(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run(temperature: float) -> Records:
        module, records = gumbel_task(), Records()
        quantizer = module.model.quantizer
        assert isinstance(quantizer, GumbelQuantizer)
        quantizer.temperature.fill_(temperature)
        with torch.no_grad():  # scores that differ, as after some training
            module.model.encoder.layers[-1].weight.mul_(5)  # type: ignore[attr-defined]
        with caplog.at_level(logging.WARNING):
            fit(module, [watch(module, scores="model.quantizer")], records)
        return records

    warm = run(1.0)
    assert warm.of("codebook/scores_vanish") == {3: 0.0, 6: 0.0}
    assert all(value > 0 for value in warm.of("codebook/score_gradient_median").values())
    largest = warm.of("codebook/score_gradient_max")
    assert all(
        largest[step] >= median
        for step, median in warm.of("codebook/score_gradient_median").items()
    )
    assert not caplog.records
    cold = run(1e-3)
    assert cold.of("codebook/score_gradient_vanished")[3] > 0.6
    assert cold.of("codebook/scores_vanish")[3] == 1.0
    assert any("temperature is too low" in record.message for record in caplog.records)


def test_watching_changes_nothing() -> None:
    def weights(watched: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module = gumbel_task()
        torch.manual_seed(1)
        fit(module, [watch(module, scores="model.quantizer")] if watched else [])
        return module.state_dict()

    plain, watched = weights(False), weights(True)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_micro_batches_belong_to_the_window_of_their_step() -> None:
    module, records = vector_task(), Records()
    fit(module, [watch(module, every=3)], records, max_steps=3, accumulate_grad_batches=2)
    ceiling = 1 - (7 / 8) ** (6 * 2 * 48)
    assert records.of("codebook/ceiling") == {3: pytest.approx(ceiling)}


def test_the_histogram_is_logged_with_its_step() -> None:
    module, records = vector_task(), Records()
    fit(module, [watch(module)], records, loader=Images())
    assert [(key, step) for key, step, *_ in records.pictures] == [
        ("codebook/histogram", 3),
        ("codebook/histogram", 6),
    ]


def test_the_histogram_falls_from_the_left_and_marks_uniform_use() -> None:
    picture = histogram(np.array([1, 4, 2, 1]), height=8)
    assert picture.shape == (8, 4, 3)
    blue = (picture == (38, 103, 214)).all(-1)
    assert blue.sum(0).tolist() == [8, 4, 2, 2]
    assert blue[-1].all()
    grey = (picture == 190).all(-1)
    assert grey.any(1).tolist().index(True) == 4  # mean 2 of a top of 4: half the height
    assert histogram(np.zeros(1000, dtype=np.int64)).shape == (96, 256, 3)


def test_nothing_to_watch_is_an_error() -> None:
    with pytest.raises(ValueError, match="no codes, so there is no codebook to watch"):
        CodebookWatch({})
    with pytest.raises(ValueError, match="window of 0 steps"):
        watch(vector_task(), every=0)
