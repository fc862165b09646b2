"""What MLflow's scoring server makes of an exported model, without a server."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from lit_eve.cli.export import export as command
from lit_eve.hub.export import export
from lit_eve.hub.registry import example, register, signature, store_for
from lit_eve.hub.serving import assistant_of
from lit_eve.inference.assistant import Decoding, ask
from lit_eve.running.directory import RunDirectory
from lit_eve.tracking.spool import Spool
from lit_eve_data.sources.validation import ImageRules, check_image
from tests.hub.made import MODELS, picture, run_of

if TYPE_CHECKING:
    from starlette.testclient import TestClient


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def text(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


ONE, TWO = picture(1, 40, 30), picture(2, 20, 64)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """Address of a registered model, that of its store, and the exported folder."""
    import mlflow

    folder = tmp_path_factory.mktemp("served")
    directory, _ = run_of(folder / "run", MODELS["eve_tied"])
    Spool(directory.path / "tracking").close()
    done = export(directory, folder / "out")
    store = store_for(directory, f"sqlite:///{folder}/mlflow.db")
    added = register(directory, done, "reader", store)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(added.store.uri)
    yield added.address, added.store.uri, folder / "out"
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def server(registered: tuple[str, str, Path]) -> TestClient:
    import mlflow
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    return TestClient(init(mlflow.pyfunc.load_model(registered[0])))


def posted(server: TestClient, rows: list[dict[str, Any]], **params: Any) -> Any:
    content = {"dataframe_records": rows, **({"params": params} if params else {})}
    return server.post("/invocations", json=content)


def test_a_request_with_images_is_answered_as_the_model_answers(
    registered: tuple[str, str, Path], server: TestClient
) -> None:
    rows = [
        {"prompt": "How many?", "images": [text(ONE)]},
        {"prompt": "And these?", "images": [f"data:image/png;base64,{text(TWO)}", text(ONE)]},
        {"prompt": "Why?", "images": []},
    ]
    answered = posted(server, rows, max_new_tokens=9)
    assert answered.status_code == 200, answered.text
    one, two = (check_image(png(image), ImageRules()) for image in (ONE, TWO))
    questions = [ask("How many?", [one]), ask("And these?", [two, one]), ask("Why?")]
    wanted = assistant_of(registered[2]).answers(questions, Decoding(9))
    assert answered.json() == {"predictions": [answer.text for answer in wanted]}
    assert any(answered.json()["predictions"])


def test_python_asks_with_plain_rows(registered: tuple[str, str, Path]) -> None:
    import mlflow

    reader = mlflow.pyfunc.load_model(registered[0])
    said = reader.predict([{"prompt": "Why?", "images": []}], params={"max_new_tokens": 9})
    assert len(said) == 1


def test_a_request_without_images_needs_no_column(server: TestClient) -> None:
    assert posted(server, [{"prompt": "Why?"}]).status_code == 200


@pytest.mark.parametrize(
    ("row", "params", "why"),
    [
        ({"prompt": "What?", "images": ["/etc/hostname"]}, {}, "paths and addresses"),
        ({"prompt": "What?", "images": ["http://x/a.png"]}, {}, "paths and addresses"),
        ({"prompt": "What?", "images": ["x,aGk="]}, {}, "does not begin as a data URL"),
        ({"prompt": "What is <image>?", "images": []}, {}, "no image for <image>"),
        ({"prompt": "What?"}, {"max_new_tokens": 9999}, "fewer new tokens"),
        ({"prompt": "What?"}, {"temperature": -1.0}, "positive number to draw"),
    ],
)
def test_a_bad_request_says_why(
    server: TestClient, row: dict[str, Any], params: dict[str, Any], why: str
) -> None:
    answered = posted(server, [row], **params)
    assert answered.status_code == 400
    assert why in json.dumps(answered.json())


def test_the_registry_knows_the_run_the_figures_and_what_a_request_holds(
    registered: tuple[str, str, Path],
) -> None:
    from mlflow import MlflowClient
    from mlflow.models import get_model_info

    version = MlflowClient(registered[1]).get_model_version("reader", "1")
    assert version.tags["lit_eve.weights"] == "model.safetensors"
    assert "held-out read | 0.25" in str(version.description)
    assert version.run_id
    info = get_model_info(registered[0])
    assert info.signature == signature()
    assert info.saved_input_example_info is not None
    assert list(example().columns) == ["prompt", "images"]


def test_a_run_without_a_store_has_to_be_told_one(tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS["eve_tied"])
    file = directory.experiment_file
    file.write_text(file.read_text() + "tracking: {type: none}\n")
    with pytest.raises(ValueError, match="Name a store with --uri"):
        store_for(RunDirectory(tmp_path / "run"), None)


def test_without_a_registry_nothing_is_written(tmp_path: Path) -> None:
    directory, _ = run_of(tmp_path / "run", MODELS["eve_tied"])
    with directory.experiment_file.open("a") as file:
        file.write("\ntracking: {type: none}\n")
    with pytest.raises(ValueError, match="there is no registry"):
        command(str(directory.path), to=tmp_path / "out", register="reader")
    assert not (tmp_path / "out").exists()
