"""Sample experiments, each a whole file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")  # the same examples on every machine, however busy it is

QUICKSTART = """\
name: quickstart
question: Can a decoder with no vision encoder read handwriting?
model:
  type: encoder_free
  language_model: {type: llama, width: 128, depth: 4, heads: 4}
  text: {type: trained, vocabulary: 400}
  patch_embedding: {type: eve, patch: 8, pool: 2, width: 128, heads: 8}
  patch_alignment: {width: 128, heads: 8, every: 2}
  teacher: {type: clip, from: runs/teacher}
loss: {language: 1.0, alignment: {weight: 1.0, distance: cosine}}
datasets:
  scenes: {type: scenes, train: 24k, val: 1k, test: 4k, cell: 16, sides: [32, 96]}
defaults:
  optimizer: {type: adamw, schedule: cosine, warmup: 3%, betas: [0.9, 0.98]}
  tokens_per_row: 512
  batch: 128
stages:
  align:
    task: alignment
    data: {scenes.captions: 1.0}
    for: 16k samples
    train: {patch_embedding: 4e-4, patch_alignment: 4e-4}
  learn:
    task: language
    data: {scenes: 1.0}
    for: 90k samples
    train: {patch_embedding: 6e-4, language_model: {lr: 6e-4, thaw: 200}}
evaluate: {every: 200 steps, answers: 24, questions: 500}
"""

LARGE = """\
name: eve-7b
model:
  type: encoder_free
  language_model: {type: pretrained, from: hf:lmsys/vicuna-7b-v1.5}
  patch_embedding: {type: eve, patch: 14, pool: 2, width: 1024, heads: 8}
  images: {size: {type: longest_edge, edge: 672}, mean: [0.48, 0.46, 0.41], std: [0.27, 0.26, 0.28]}
  patch_alignment: {width: 1024, heads: 8, every: 4}
  teacher: {type: clip, from: hf:openai/clip-vit-large-patch14-336, layer: -2}
loss: {alignment: {weight: {schedule: linear, from: 1.0, to: 0.1, over: 10k steps}}}
datasets:
  captions: {type: litdata, path: s3://lab/captions}
  llava: {type: litdata, path: "${oc.env:LLAVA}"}
stages:
  prealign:
    task: alignment
    data: {captions.long: 1.0, captions: 0.5}
    for: 16M samples
    batch: 512
    tokens_per_row: 16384
    precision: bf16
    train: {patch_embedding: 4e-4, patch_alignment: 4e-4}
  instruct:
    task: language
    from: prealign
    data: {llava: 1.0}
    for: 1 epoch
    batch: 128
    tokens_per_row: 16384
    precision: bf16
    train:
      patch_embedding: {schedule: cosine, from: 2e-5, to: 0, over: 100%}
      language_model.model.layers.31: {lr: 2e-5, thaw: 1k steps, warmup: 100}
      language_model.lm_head: 1e-5
hardware: {nodes: 2, devices: 8, strategy: hsdp, compile: true, activation_checkpointing: true}
tracking: {type: mlflow, uri: "${oc.env:MLFLOW_URI}"}
"""

LINEAR = """\
name: fuyu
model:
  type: encoder_free
  language_model: {type: llama, width: 64, depth: 2, heads: 4, kv_heads: 2}
  text: {type: bytes}
  patch_embedding: {type: linear, patch: 30}
  images: {size: {type: square, edge: 300}}
datasets: {pictures: {type: litdata, path: data/pictures}}
stages:
  learn: {task: language, data: {pictures: 1}, for: 2M tokens, batch: 8,
          train: {language_model: 1e-4}}
tracking: {type: none}
"""

AREA = """\
name: eve-v2
model:
  type: encoder_free
  language_model: {type: pretrained, from: hf:Qwen/Qwen2.5-7B-Instruct}
  patch_embedding: {type: eve_v2, patch: 16, pool: 2, width: 1024}
  images: {size: {type: area, max_side: 800}}
datasets: {pictures: {type: litdata, path: data/pictures}}
stages:
  learn: {task: language, data: {pictures: 1}, for: 3 epochs, batch: 8, tokens_per_row: 4096,
          train: {patch_embedding: 1e-4}}
"""

FLORENCE = """\
name: florence
model:
  type: encoder
  language_model: {type: pretrained, from: hf:microsoft/Phi-3.5-mini-instruct}
  vision_encoder:
    type: pretrained
    from: hf:florence-community/Florence-2-large-ft
    layers: [0, -1]
    prompts: [<DETAILED_CAPTION>, <OCR>, Where it is]
  connector: {type: depth_breadth}
datasets: {pictures: {type: litdata, path: data/pictures}}
stages:
  learn: {task: language, data: {pictures: 1}, for: 3 epochs, batch: 8, tokens_per_row: 4096,
          train: {vision_encoder: 1e-5, connector: 1e-4}}
"""


def _tokenizer(encoder: str, quantizer: str, more: str = "") -> str:
    return f"""\
name: tokenizer
model:
  type: tokenizer
  encoder: {encoder}
  quantizer: {quantizer}
  images: {{size: {{type: square, edge: 128}}}}
  ema: 0.999
{more}
datasets: {{scenes: {{type: scenes, sides: [64, 128]}}}}
stages:
  learn: {{task: tokenizer, data: {{scenes: 1}}, for: 200k steps, batch: 64,
           train: {{encoder: 1e-4, decoder: 1e-4}}}}
evaluate: {{images: 32}}
"""


_SMALL = "{type: convolutional, width: 64, multipliers: [1, 2, 2], attention: [2]}"
SAMPLES = {
    "quickstart": QUICKSTART,
    "large": LARGE,
    "linear": LINEAR,
    "area": AREA,
    "florence": FLORENCE,
    "gumbel": _tokenizer("{type: dalle}", "{type: gumbel}", "  likelihood: logit_laplace"),
    "vq": _tokenizer(_SMALL, "{type: vq, update: {type: loss}, gradient: rotation}"),
    "vqgan": _tokenizer(
        _SMALL,
        "{type: vq}",
        "  likelihood: l1\n  perceptual: {}\n  discriminator: {starts: 50k}",
    ).replace("decoder: 1e-4", "decoder: 1e-4, discriminator: 1e-4"),
    "fsq": _tokenizer(_SMALL, "{type: fsq, levels: [8, 5, 5, 5]}", "  likelihood: l1"),
    "lfq": _tokenizer(_SMALL, "{type: lfq, bits: 10}"),
    "residual": _tokenizer(_SMALL, "{type: residual, quantizer: {type: vq}, depth: 8}"),
    "multi_scale": _tokenizer(_SMALL, "{type: multi_scale, scales: [[1, 1], [4, 4], [32, 32]]}"),
    "gaussian": _tokenizer(_SMALL, "{type: gaussian, kl: 1e-6}", "  likelihood: l2"),
}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a YAML file into an empty folder."""

    def writing(text: str, name: str = "experiment.yaml") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    return writing


@pytest.fixture
def quickstart(write: Write) -> Path:
    return write(QUICKSTART)


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, write: Write) -> Path:
    return write(SAMPLES[request.param], f"{request.param}.yaml")
