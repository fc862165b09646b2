"""A whole run of an image tokenizer: what it leaves, how it goes on, what its codes are for."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from safetensors.torch import load_file

from lit_eve.assemble.tokenizers import sizes
from lit_eve.checkpoints import newest, read_weights
from lit_eve.cli import codes
from lit_eve.evaluation.evaluate import evaluate_run
from lit_eve.inference.encode import load_codes, pictures_in, read_image
from lit_eve.inference.opening import open_tokenizer
from lit_eve.running import directory as run_directory
from lit_eve.running import run
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import Tokenizer, plan_file
from lit_eve.running.stage import RunInterrupted
from lit_eve.schema import TokenizerExperiment, load
from lit_eve.tracking.spool import EVENTS_FILE, read_events
from lit_eve_data.encoding.crops import Crop
from tests.files import QUICKSTART, UNTRACKED
from tests.test_run import silent

FILE = QUICKSTART.parent / "tokenizer" / "vq_laptop.yaml"
CHANGES = [UNTRACKED, "model.quantizer.revive=0.5"]


def start(runs: Path, datasets: Path) -> RunDirectory:
    return run.start(
        FILE, CHANGES, tiny=True, runs=runs, data=datasets, first=None, console=silent()
    )


@pytest.fixture(autouse=True)
def _own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(run_directory.RUN_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, datasets: Path) -> RunDirectory:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(run_directory.RUN_VARIABLE, raising=False)
        return start(tmp_path_factory.mktemp("runs"), datasets)


def test_a_run_leaves_plan_scores_and_averaged_weights(finished: RunDirectory) -> None:
    summary = finished.summary("train")
    assert summary is not None
    plan = json.loads((finished.path / "plan.json").read_text())["train"]
    assert (summary["state"], summary["steps"], plan["codes"]) == ("finished", 6, 64)
    assert {"psnr", "ssim", "scenes/psnr", "photos/psnr", "codebook/usage"} <= set(
        summary["scores"]
    )
    last = newest(finished.checkpoints("train"))
    assert last is not None
    final, raw = load_file(finished.weights("train")), read_weights(last, "model.")
    assert final.keys() == raw.keys()
    assert not torch.equal(final["encoder.layers.0.weight"], raw["encoder.layers.0.weight"])


def test_a_run_tells_of_codes_pictures_and_schedules(finished: RunDirectory) -> None:
    named: set[str] = set()
    for event, _ in read_events(finished.stage("train") / "tracking" / EVENTS_FILE):
        if event["k"] == "metrics":
            named |= set(event["v"])
        elif event["k"] == "image":
            named.add(event["key"])
    assert {"val/reconstructions", "val/psnr", "val/codebook/usage_of_ceiling"} <= named
    assert {"train/reconstruction", "train/commitment", "optim/lr_encoder", "test/psnr"} <= named


def test_scores_are_those_of_the_weights_that_are_left(
    finished: RunDirectory, datasets: Path
) -> None:
    summary = finished.summary("train")
    assert summary is not None
    again = evaluate_run(finished, None, None, datasets, silent())
    assert again["psnr"] == pytest.approx(summary["scores"]["psnr"], abs=1e-3)


class Stop(Callback):
    """A signal in the middle of the fourth step."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            signal.raise_signal(signal.SIGTERM)


def test_a_stopped_run_ends_with_the_weights_of_one_that_never_stopped(
    finished: RunDirectory, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Tokenizer.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "callbacks", lambda *given: [*own(*given), Stop()])
        with pytest.raises(RunInterrupted):
            start(tmp_path, datasets)
    stopped = run_directory.find("vq-laptop-tiny", tmp_path)
    assert not stopped.finished("train")
    run.resume(stopped, datasets, None, silent())
    expected, found = load_file(finished.weights("train")), load_file(stopped.weights("train"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_pictures_become_codes_and_pictures_again(finished: RunDirectory, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, side in enumerate((16, 32)):
        noise = np.random.default_rng(number).integers(0, 256, (16, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    file, out = tmp_path / "codes.safetensors", tmp_path / "out"
    codes.encode(str(finished.path), [folder], to=file)
    assert load_codes(file).grids == ((4, 4), (4, 8))
    codes.decode(str(finished.path), file, to=out)
    shapes = [read_image(picture, 4).shape for picture in sorted(out.iterdir())]
    assert shapes == [(3, 16, 16), (3, 16, 32)]
    pixels = read_image(folder / "0.png", 4)[None]
    assert torch.equal(open_tokenizer(finished).encode(pixels)[0], load_codes(file).codes[0])


def test_what_cannot_be_encoded_is_refused(tmp_path: Path, tiny_run: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty is no picture and no folder of pictures"):
        pictures_in([tmp_path / "empty"])
    with pytest.raises(ValueError, match=r"--fit stretch is unknown. Choose exact, crop or resize"):
        codes.encode("run", [tmp_path], fit="stretch")
    with pytest.raises(ValueError, match=r"only image tokenizers turn pictures into codes"):
        open_tokenizer(RunDirectory(tiny_run))


# Worked by hand: 3 M steps of 512 pictures; 1024 codes of a picture of 256 x 256.
def test_the_plan_of_the_paper_has_its_numbers() -> None:
    (plan,) = plan_file(FILE.parent / "dalle_dvae.yaml", [])
    assert (plan.steps, plan.samples, plan.image) == (3_000_000, 1_536_000_000, (256, 256))
    # As published, less the bias of the decoder's first convolution, which codes contain.
    assert plan.total == 53_786_240 + 43_829_766 - 128


def test_the_crops_of_the_file_are_those_of_the_paper() -> None:
    experiment = load(FILE.parent / "dalle_dvae.yaml", [])
    assert isinstance(experiment, TokenizerExperiment)
    assert sizes(experiment.model.images) == Crop(256, (1.125, 1.5), flip=True)
