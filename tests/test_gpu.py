"""What only a CUDA device can show; `pytest -m gpu` where there is one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from lit_eve.models.language_model import LanguageModel
from lit_eve.planning.memory import activation_bytes, step_memory
from lit_eve.running import directory as run_directory
from lit_eve.running import run
from lit_eve.running.kinds import VisionLanguage
from lit_eve.strategies import Sharding, build_strategy, gather_weights
from tests.files import QUICKSTART, UNTRACKED
from tests.tiny_training import Task, fit, same, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_run_is_trained_and_examined_on_the_device(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    examine = VisionLanguage.examine

    def noted(kind: Any, name: str, model: nn.Module, limit: int | None = None) -> Any:
        seen.append(next(model.parameters()).device.type)
        return examine(kind, name, model, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(VisionLanguage, "examine", noted)
    monkeypatch.setenv(run_directory.RUN_VARIABLE, "")
    monkeypatch.delenv(run_directory.RUN_VARIABLE)
    left = run.start(
        QUICKSTART,
        [UNTRACKED, "hardware={accelerator: gpu, devices: 1, workers: 0}"],
        tiny=True,
        runs=tmp_path,
        data=datasets,
        first=None,
        console=Console(file=io.StringIO()),
    )
    assert seen == ["cuda", "cuda"]
    for stage in ("glimpse", "read"):
        summary = json.loads((left.path / stage / "summary.json").read_text())
        assert summary["state"] == "finished"


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_shards_on_a_device_end_with_the_weights_of_a_whole_model(
    offload: bool, background: bool
) -> None:
    torch.manual_seed(0)
    whole, sharded = Task(), Task()
    fit(whole, [], accelerator="gpu", max_steps=4)
    strategy = build_strategy("fsdp", 1, sharding=Sharding(offload=offload, background=background))
    fit(sharded, [], accelerator="gpu", strategy=strategy, max_steps=4)
    expected, found = weights(whole), gather_weights(sharded)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor.cpu(), rtol=1e-5, atol=1e-6)
    assert not same(found, weights(Task()))


def test_the_plan_says_what_a_step_takes() -> None:
    """A decoder of 0.3 B, recomputed, bf16: planned within 10 % of the measured peak."""
    device, tokens = torch.device("cuda"), 4096
    decoder = LanguageModel.llama(32_000, 1024, depth=16, heads=16).to(device).train()
    decoder.recompute_activations()
    optimizer = torch.optim.AdamW(decoder.parameters(), fused=True)
    positions = torch.arange(tokens, device=device)[None]
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):  # as Lightning has it
            embedded = decoder.embed(torch.zeros_like(positions))
            hidden, _ = decoder.hidden_states(embedded, positions)
        hidden.float().square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    kept = activation_bytes(decoder, tokens, half=True, recompute=True)
    planned = step_memory(decoder, (), kept - 2 * 4 * 2**24).total  # no logits were made
    assert planned == pytest.approx(torch.cuda.max_memory_allocated(device), rel=0.1)
