"""A finished run is opened without its data, and says what is wrong when it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lit_eve.cli import app, use
from lit_eve.inference.opening import open_assistant, open_run
from lit_eve.running.directory import RunDirectory
from lit_eve.running.kinds import VisionLanguage
from tests.inference.tiny import write_picture
from tests.test_run import silent


@pytest.fixture
def copy(tiny_run: Path, tmp_path: Path) -> RunDirectory:
    """The run without checkpoints, to be damaged."""
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    return RunDirectory(tmp_path / "run")


def written_by(directory: RunDirectory, version: str) -> None:
    directory.write_json("environment.json", {"packages": {"lit-eve": version}})


def test_it_has_the_weights_of_the_stage_and_needs_no_data(copy: RunDirectory) -> None:
    for stage, given in (("glimpse", "glimpse"), ("read", None)):
        assistant = open_assistant(copy, given)
        assert assistant.stage == stage
        state = assistant.model.state_dict()
        expected = load_file(copy.weights(stage))
        assert all(torch.equal(value, state[key]) for key, value in expected.items())
        assert not assistant.model.training


def test_it_reads_as_the_run_itself_does(tiny_run: Path, datasets: Path) -> None:
    directory = RunDirectory(tiny_run)
    kind, name, _ = open_run(directory, None, datasets, silent())
    assert isinstance(kind, VisionLanguage)
    mine, theirs = open_assistant(directory).encoder, kind.encoder_of(name)
    assert mine.cutter == theirs.cutter
    assert mine.text.fingerprint() == theirs.text.fingerprint()


def test_a_run_of_another_version_says_so(copy: RunDirectory) -> None:
    weights = load_file(copy.weights("read"))
    save_file({f"old_{name}": value for name, value in weights.items()}, copy.weights("read"))
    with pytest.raises(ValueError, match=r"does not hold this model") as caught:
        open_assistant(copy)
    assert "pip install" not in str(caught.value)
    written_by(copy, "0.0.3")
    with pytest.raises(ValueError, match=r"written by lit-eve 0\.0\.3 .* lit-eve==0\.0\.3"):
        open_assistant(copy)
    copy.experiment_file.write_text(copy.experiment_file.read_text() + "\nflavour: old\n")
    with pytest.raises(ValueError, match=r"0\.0\.3 and this is .*flavour: unknown key"):
        open_assistant(copy)
    (copy.path / "environment.json").write_text("{")
    with pytest.raises(ValueError, match="flavour: unknown key"):
        open_assistant(copy)


def test_a_run_without_its_words_is_refused(copy: RunDirectory) -> None:
    file = yaml.safe_load(copy.experiment_file.read_text())
    file["model"]["text"] = {"type": "trained", "vocabulary": 300}
    copy.experiment_file.write_text(yaml.safe_dump(file))
    (copy.text / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="Copy the whole folder"):
        open_assistant(copy)


def test_generate_streams_one_answer_and_writes_many(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_picture(tmp_path / "in" / f"{number}.png", 32, 32 + 16 * number, number)
    run = str(tiny_run)
    use.generate(run, prompt="Read.", image=[tmp_path / "in" / "1.png"], max_new_tokens=4)
    alone = capsys.readouterr().out.strip()
    out = tmp_path / "answers.jsonl"
    use.generate(run, prompt="Read.", image_dir=tmp_path / "in", out=out, max_new_tokens=4)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["image"] for line in lines] == ["0.png", "1.png", "2.png"]
    assert lines[1]["answer"] == alone
    assert f"wrote {out}: 3 answers" in capsys.readouterr().err


def test_mistakes_are_told_before_the_model_is_opened(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: broken\n")
    asked = ["generate", str(tmp_path), "--prompt", "<image>"]
    result = CliRunner().invoke(app, asked)
    assert "no image for <image>" in str(result.exception)
    with pytest.raises(ValueError, match=r"top_p 0\.5 would be ignored"):
        use.generate(str(tmp_path), prompt="p", top_p=0.5)
