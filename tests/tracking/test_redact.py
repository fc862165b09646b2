from __future__ import annotations

import pytest

from lit_eve.tracking.redact import redact, redact_urls


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://me:pass@host:5000/x", "https://***@host:5000/x"),
        ("postgresql+psycopg2://me:p@ss@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("https://token123@host/x", "https://***@host/x"),
        ("tracking.uri=http://u:p@h and more", "tracking.uri=http://***@h and more"),
        ("http://h/x?api_key=abc&page=1", "http://h/x?api_key=***&page=1"),
        ("password: hunter2", "password: ***"),
        ("HF_TOKEN=abc python run", "HF_TOKEN=*** python run"),
        ("aws_secret_access_key = abc", "aws_secret_access_key = ***"),
    ],
)
def test_secrets_are_hidden(text: str, hidden: str) -> None:
    assert redact(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me/mlflow.db",
        "git+ssh://git@github.com/lab/repo",
        "http://localhost:5000/#/experiments/1/runs?workflowType=machine_learning",
        "tokens_per_row: 512",
        "tokenizer: bytes",
        "password: ${oc.env:MLFLOW_PASSWORD}",
        "s3://lab/llava-665k",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert redact(text) == text


def test_code_in_a_diff_stays_applicable_but_for_its_urls() -> None:
    diff = '+token = read()\n+url = "http://me:pass@host"\n'
    assert redact_urls(diff) == '+token = read()\n+url = "http://***@host"\n'
