"""Florence-2 as a vision encoder, against Transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Florence2Model, ViTConfig, ViTModel

from lit_eve import assemble
from lit_eve.models.connectors.projections import DepthBreadthConnector, Merge
from lit_eve.models.encoder import EncoderVLM
from lit_eve.models.florence2 import Florence2Encoder, settings_of
from lit_eve.models.language_model import LanguageModel
from lit_eve.models.teacher import Normalisation
from lit_eve.schema.models import EncoderModel
from tests.models.florence2_folder import IMAGE, LONG, SHORT, SIDE, WORDS, write_florence2
from tests.models.packed import Sample, pack

PLAIN = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CELLS = 4
PROMPTS = (LONG, SHORT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_florence2(tmp_path_factory.mktemp("florence") / "2")


def encoder(
    folder: Path, layers: tuple[int, ...] = (0, 1, -1), prompts: tuple[str, ...] = PROMPTS
) -> Florence2Encoder:
    return Florence2Encoder.pretrained(str(folder), layers, prompts, PLAIN).eval()


def pixels(images: int = 2) -> Tensor:
    return torch.randn(images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def as_transformers_does(folder: Path, image: Tensor, prompt: str) -> tuple[Tensor, list[Tensor]]:
    """One picture, one prompt: the tower's features, and those of every layer, of cells only.

    No padding and no batch: a row of picture tokens, a beginning, the words, an end.
    """
    model: Any = Florence2Model.from_pretrained(folder)
    model.eval()
    words = [WORDS.index(word) for word in prompt.replace("?", " ?").split()]
    ids = torch.tensor([[IMAGE] * (1 + CELLS) + [WORDS.index("<s>"), *words, WORDS.index("</s>")]])
    with torch.no_grad():
        seen = model.get_image_features(image[None]).pooler_output
        read = model(input_ids=ids, pixel_values=image[None], output_hidden_states=True)
    states = [state[0, 1 : 1 + CELLS] for state in read.encoder_hidden_states]
    torch.testing.assert_close(states[-1], read.encoder_last_hidden_state[0, 1 : 1 + CELLS])
    return seen[0, 1:], states


def test_features_are_those_of_transformers_own_model(folder: Path) -> None:
    images = pixels()
    with torch.no_grad():
        seen, *read = encoder(folder).encode(images)
    assert len(read) == 4
    for n, image in enumerate(images):
        for place, prompt in enumerate(PROMPTS):
            tower, layers = as_transformers_does(folder, image, prompt)
            torch.testing.assert_close(seen[n], tower, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(read[place][n], layers[1], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(read[2 + place][n], layers[2], atol=1e-5, rtol=1e-5)


def test_every_prompt_changes_what_is_read_and_nothing_of_what_is_seen(folder: Path) -> None:
    with torch.no_grad():
        seen, one, other = encoder(folder, (0, -1)).encode(pixels())
        again, alone = encoder(folder, (0, -1), (SHORT,)).encode(pixels())
    assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(seen, again)
    torch.testing.assert_close(other, alone, atol=1e-5, rtol=1e-5)  # its neighbour was longer


@pytest.mark.parametrize(("merge", "tokens"), [("token", 12), ("channel", 4), ("mean", 4)])
def test_fusion_of_a_tower_and_two_prompts(folder: Path, merge: Merge, tokens: int) -> None:
    seeing = encoder(folder, (0, -1))
    assert seeing.num_states == 3
    connector = DepthBreadthConnector(seeing.width, seeing.cells, 8, seeing.num_states, merge)
    model = EncoderVLM(seeing, connector, LanguageModel.llama(40, width=8, depth=1, heads=2)).eval()
    picture = torch.rand(3, SIDE, SIDE)
    batch = pack([[Sample([picture, [1]])]], model.layout, 24)
    with torch.no_grad():
        given = model.look(batch.images).tokens
        square = seeing._squares(batch.images, model.layout)
        tower, read = as_transformers_does(folder, square[0], LONG)
        sets = [tower, read[-1], as_transformers_does(folder, square[0], SHORT)[1][-1]]
        rows = {
            "token": [feature for features in sets for feature in features],
            "channel": [torch.cat([features[n] for features in sets]) for n in range(CELLS)],
            "mean": [sum(features[n] for features in sets) / 3 for n in range(CELLS)],
        }[merge]
        first, act, second = connector.project
        wanted = torch.stack([second(act(first(torch.as_tensor(row)))) for row in rows])
    assert given.shape == (tokens, 8)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)


def test_all_of_it_learns_and_only_the_words_of_the_prompts_are_kept(folder: Path) -> None:
    seeing = encoder(folder)
    used = {"<s>", "</s>", *LONG.replace("?", " ?").split(), "Hm"}
    assert seeing.encoder is not None
    assert seeing.encoder.embed_tokens.weight.shape == (len(used), 16)
    torch.cat(seeing.encode(pixels())).square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in seeing.parameters())
    assert seeing.encoder.embed_tokens.weight.grad.abs().sum(1).gt(0).all()


def test_weights_move_into_the_shape_that_its_own_settings_give(folder: Path) -> None:
    trained = encoder(folder, (0, -2))
    shape = Florence2Encoder.shaped_like(trained.config, (0, -2), PROMPTS, PLAIN).eval()
    shape.load_state_dict(trained.state_dict())
    with torch.no_grad():
        for wanted, given in zip(trained.encode(pixels()), shape.encode(pixels()), strict=True):
            assert torch.equal(wanted, given)


def test_arithmetic_of_three_prompts_is_one_tower_and_three_readings(folder: Path) -> None:
    def cost(layers: tuple[int, ...], prompts: tuple[str, ...]) -> int:
        seeing = encoder(folder, layers, prompts)
        connector = DepthBreadthConnector(16, CELLS, 8, seeing.num_states, "mean")
        decoder = LanguageModel.llama(40, width=8, depth=1, heads=2)
        return EncoderVLM(seeing, connector, decoder).vision_flops(2, 2)

    tower, one = cost((0,), ()), cost((0, -1), (LONG,))
    slots, width, inner = 1 + CELLS + 8, 16, 32
    layer = 2 * slots * (4 * width * width + 2 * width * inner) + 4 * slots * slots * width
    assert one - tower == 2 * layer
    three = cost((0, -1), (LONG, "What the image does describe ?", "does the image describe What?"))
    assert three - tower == 3 * 2 * layer


def test_one_from_scratch_reads_bytes(folder: Path) -> None:
    model = assemble.vision_language(_from_scratch(("é", "Hm")), 300)
    assert isinstance(model, EncoderVLM)
    seeing = model.vision_encoder
    assert isinstance(seeing, Florence2Encoder)
    assert seeing.prompt_tokens.tolist() == [[3, 2], [0, 1]]  # é is C3 A9 in UTF-8, H 48, m 6D
    assert (seeing.cells, seeing.num_states) == (4, 3)
    assert [state.shape for state in seeing.encode(pixels())] == 3 * [(2, 4, 12)]


def _from_scratch(prompts: tuple[str, ...]) -> EncoderModel:
    seen = {"type": "florence2", "width": 12, "depth": 1, "heads": 3, "patch": 8, "image": SIDE}
    return EncoderModel.model_validate(
        {
            "type": "encoder",
            "language_model": {"type": "llama", "width": 8, "depth": 1, "heads": 2},
            "text": {"type": "bytes"},
            "vision_encoder": {**seen, "prompts": prompts},
            "connector": {"type": "depth_breadth"},
        }
    )


@pytest.mark.parametrize(
    ("layers", "prompts", "told"),
    [
        ((0, 3), PROMPTS, r"no hidden states \[3\].*Choose from -3 to 2; 0 is what the tower sees"),
        ((0, 2), (), r"layers \[2\] of Florence-2 read.*Write model.vision_encoder.prompts"),
        ((-3,), (SHORT,), r"hidden state 0 comes before any prompt.*Add -1"),
        (
            (-1,),
            (LONG + " Hm" * 8,),
            r"has 16 tokens and this Florence-2 reads 15 behind a picture",
        ),
    ],
)
def test_what_would_be_lost_is_refused(
    folder: Path, layers: tuple[int, ...], prompts: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        encoder(folder, layers, prompts)


def test_prompts_on_an_encoder_that_does_not_read_are_refused(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8)
    ViTModel(config).save_pretrained(tmp_path)
    options = _from_scratch((SHORT,)).model_dump(by_alias=True)
    seen = {"type": "pretrained", "from": str(tmp_path), "prompts": [SHORT], "layers": [0, -1]}
    with pytest.raises(ValueError, match=r"is a vit, which sees and does not read.*Take them out"):
        assemble.on_meta(EncoderModel.model_validate({**options, "vision_encoder": seen}), 300)


def test_a_folder_that_cannot_be_read_says_why(folder: Path, tmp_path: Path) -> None:
    write_florence2(tmp_path)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"has no words for the prompt 'Hm'.*with its tokenizer"):
        settings_of(str(tmp_path), (SHORT,))
    settings = tmp_path / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace('"height": 16', '"height": 24'))
    with pytest.raises(ValueError, match=r"says size: .*and a square is needed"):
        settings_of(str(tmp_path), ())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"embed_dim"', '"dim_embed"'))
    with pytest.raises(ValueError, match=r"in the format of Microsoft's own code"):
        settings_of(str(tmp_path), ())


def test_a_square_the_tower_has_no_places_for_is_refused(folder: Path, tmp_path: Path) -> None:
    write_florence2(tmp_path)
    settings = tmp_path / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace(": 16", ": 40"))
    with pytest.raises(ValueError, match=r"square of 40 px.*places for 4 a side.*32 at most"):
        encoder(tmp_path)
