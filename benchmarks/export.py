"""A run's way out and back, in processes of their own: what comes through, and how long it takes.

    uv run python -m benchmarks.export RUN PICTURE     a vision-language run, a picture file

Exports the run, asks it in a fresh process with nothing but Transformers, compares scores and
answer with the run's own, imports the folder again, registers it and asks a served copy over HTTP.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch

from lit_eve.inference.assistant import Decoding, ask
from lit_eve.inference.opening import open_assistant
from lit_eve.inference.requests import read_picture
from lit_eve.running.directory import RunDirectory
from lit_eve_data.packing.rows import Item, collate

PROMPT = "How many digits are there?"
NEW = 24
FRESH = """
import json, sys, torch, lit_eve
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
folder, picture, prompt, to, new = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
content = [{"type": "image", "path": picture}, {"type": "text", "text": prompt}]
chat = [{"role": "user", "content": content}]
inputs = processor.apply_chat_template(chat, tokenize=True)
with torch.no_grad():
    torch.save(model(**inputs).logits, to)
ids = model.generate(**inputs, max_new_tokens=int(new))[0, inputs["input_ids"].shape[1]:]
piped = pipeline("image-text-to-text", model=model, processor=processor)(
    text=chat, max_new_tokens=int(new), return_full_text=False)
print(json.dumps([processor.decode(ids, skip_special_tokens=True).strip(),
                  piped[0]["generated_text"].strip()]))
"""
"""What somebody writes who has the folder and Transformers."""


def timed(words: list[str], **environment: str) -> tuple[str, float]:
    """Standard output of a command, and its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=os.environ | environment
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout, time.perf_counter() - started


def own_scores(run: Path, picture: Path) -> torch.Tensor:
    """Scores of the next token over a prompt, (1, T, V), by the run's own model."""
    assistant = open_assistant(RunDirectory(run))
    question = ask(PROMPT, [read_picture(picture)])
    encoded = assistant.encoded(question, Decoding(NEW))
    item = Item(encoded, [image.pixels() for image in question.images], "asked")
    text, cutter = assistant.encoder.text, assistant.encoder.cutter
    batch = collate([[item]], len(encoded), text.pad_id, cutter)
    with torch.no_grad():
        return assistant.model.language_model.logits(assistant.model(batch).hidden)


def served(address: str, store: str, body: dict[str, Any]) -> tuple[Any, float, float]:
    """What a served model answers, seconds until it is up, and seconds of the second request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address]
    words += ["--env-manager", "local", "-p", str(port), "-h", "127.0.0.1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            up = _wait(f"http://127.0.0.1:{port}/ping", server, started)
            _post(f"http://127.0.0.1:{port}/invocations", body)
            again = time.perf_counter()
            answer = _post(f"http://127.0.0.1:{port}/invocations", body)
            return answer, up, time.perf_counter() - again
        finally:
            server.terminate()
            server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes], started: float) -> float:
    while time.perf_counter() - started < 180 and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.perf_counter() - started
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise SystemExit("the server did not come up")


def _post(url: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.loads(reply.read())


def main(run: Path, picture: Path) -> None:
    """Print every comparison."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        cli = [sys.executable, "-m", "lit_eve"]
        folder, scores, store = place / "out", place / "scores.pt", f"sqlite:///{place}/mlflow.db"
        _, seconds = timed([*cli, "export", str(run), "--to", str(folder)])
        print(f"export             {seconds:6.1f} s")
        question = ["--image", str(picture), "--prompt", PROMPT, "--max-new-tokens", str(NEW)]
        own, seconds = timed([*cli, "generate", str(run), *question])
        print(f"lit-eve generate   {seconds:6.1f} s  {own.strip()!r}")
        arguments = [str(folder), str(picture), PROMPT, str(scores), str(NEW)]
        said, seconds = timed([sys.executable, "-c", FRESH, *arguments])
        generated, piped = json.loads(said)
        print(f"fresh process      {seconds:6.1f} s  {generated!r}, pipeline {piped!r}")
        away = (torch.load(scores) - own_scores(run, picture)).abs().max().item()
        print(f"largest difference of scores {away:.1e}")
        _, seconds = timed([*cli, "import", "exported", str(folder), str(place / "back")])
        back, _ = timed([*cli, "generate", str(place / "back"), *question])
        print(f"import             {seconds:6.1f} s  {back.strip()!r}")
        _, seconds = timed([*cli, "export", str(run), "--register", "reader", "--uri", store])
        print(f"export --register  {seconds:6.1f} s")
        image = base64.b64encode(picture.read_bytes()).decode()
        body = {
            "dataframe_records": [{"prompt": PROMPT, "images": [image]}],
            "params": {"max_new_tokens": NEW},
        }
        answer, up, seconds = served("models:/reader/1", store, body)
        print(f"mlflow serve: up after {up:.1f} s, a request {seconds * 1000:.0f} ms  {answer}")
        same = {own.strip(), generated, piped, back.strip(), answer["predictions"][0].strip()}
        assert len(same) == 1, same
        assert away < 1e-5, away


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
