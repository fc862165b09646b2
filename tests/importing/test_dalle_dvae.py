"""The released files are imitated: pickled modules of classes that are gone when they are read."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lit_eve.importing.dalle_dvae import build, read_released, size_of
from lit_eve.importing.dalle_run import import_dalle_dvae
from lit_eve.inference.opening import open_tokenizer
from lit_eve.models.tokenizers.dalle import DalleDecoder, DalleEncoder
from lit_eve.running.directory import RunDirectory

WIDTH, BLOCKS, CODES, CODE_WIDTH = 4, 2, 10, 6


@pytest.fixture
def dall_e() -> Iterator[dict[str, Any]]:
    """The package's classes by their names, importable while the test lasts."""
    classes = {
        "dall_e.encoder": ("Encoder", "EncoderBlock"),
        "dall_e.decoder": ("Decoder", "DecoderBlock"),
        "dall_e.utils": ("Conv2d",),
    }
    made: dict[str, Any] = {}
    for place, names in classes.items():
        module = ModuleType(place)
        for name in names:
            made[name] = type(name, (nn.Module,), {"__module__": place})
            setattr(module, name, made[name])
        sys.modules[place] = module
    sys.modules["dall_e"] = ModuleType("dall_e")
    yield made
    for place in (*classes, "dall_e"):
        sys.modules.pop(place, None)


def released(module: nn.Module, classes: dict[str, Any], top: str) -> nn.Module:
    """A module of the released classes with the parameters of ours."""

    def convert(part: Any) -> Any:
        if hasattr(part, "w"):
            copy = classes["Conv2d"]()
            copy.w, copy.b = part.w, part.b
            copy.use_float16, copy.device = True, torch.device("cpu")  # further attributes
            return copy
        if hasattr(part, "res_path"):
            copy = classes[f"{top}Block"]()
            copy.post_gain = part.post_gain
            copy.id_path, copy.res_path = convert(part.id_path), convert(part.res_path)
            return copy
        if isinstance(part, nn.Sequential):
            named = part.named_children()
            return nn.Sequential(OrderedDict((name, convert(child)) for name, child in named))
        return part

    whole: nn.Module = classes[top]()
    whole.blocks = convert(module.get_submodule("blocks"))
    return whole


@pytest.fixture
def ours() -> tuple[DalleEncoder, DalleDecoder]:
    torch.manual_seed(0)
    return (
        DalleEncoder(CODES, WIDTH, BLOCKS),
        DalleDecoder(6, WIDTH, BLOCKS, CODE_WIDTH, num_codes=CODES),
    )


def test_pickled_modules_are_read_without_their_classes(
    ours: tuple[DalleEncoder, DalleDecoder], dall_e: dict[str, Any], tmp_path: Path
) -> None:
    for module, top in zip(ours, ("Encoder", "Decoder"), strict=True):
        torch.save(released(module, dall_e, top), tmp_path / f"{top}.pkl")
    for place in [name for name in sys.modules if name.startswith("dall_e")]:
        del sys.modules[place]
    for module, top in zip(ours, ("Encoder", "Decoder"), strict=True):
        found, expected = read_released(tmp_path / f"{top}.pkl"), module.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_tokenizer_computes_what_the_released_modules_do(
    ours: tuple[DalleEncoder, DalleDecoder], tmp_path: Path
) -> None:
    encoder, decoder = ours
    with torch.no_grad():
        decoder.get_parameter("blocks.input.b").normal_()  # zero at the start, not after training
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    torch.save(decoder.state_dict(), tmp_path / "decoder.pt")
    tokenizer = build(
        read_released(tmp_path / "encoder.safetensors"), read_released(tmp_path / "decoder.pt")
    )
    image = torch.rand(2, 3, 16, 24)
    scores = encoder(0.8 * image + 0.1)
    codes = tokenizer.encode(image)
    assert torch.equal(codes, scores.argmax(1))
    outputs: Tensor = decoder(F.one_hot(codes, CODES).movedim(-1, 1).float())
    expected = ((torch.sigmoid(outputs[:, :3]) - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(codes), expected)


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('code was run')",)


def test_a_pickle_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    torch.save({"blocks.input.w": torch.zeros(1), "surprise": Evil()}, tmp_path / "evil.pkl")
    with pytest.raises(ValueError, match=r"evil.pkl asks for exec.*save its `state_dict\(\)`"):
        read_released(tmp_path / "evil.pkl")


def test_files_that_are_no_dvae_are_named(
    ours: tuple[DalleEncoder, DalleDecoder], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is no file"):
        read_released(tmp_path / "missing.pkl")
    (tmp_path / "text.pkl").write_text("nothing")
    with pytest.raises(ValueError, match=r"text.pkl"):
        read_released(tmp_path / "text.pkl")
    old = tmp_path / "old.pkl"  # what torch wrote of a whole module before 1.6
    torch.save(torch.nn.ReLU(), old, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old.pkl holds a whole module.*its `state_dict\(\)`"):
        read_released(old)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(ValueError, match=r"cut.safetensors cannot be read"):
        read_released(tmp_path / "cut.safetensors")
    (tmp_path / "noise.pkl").write_bytes(b"h\x05.")  # the sixth of what was never written
    with pytest.raises(ValueError, match=r"noise.pkl cannot be read \(KeyError.*Download it again"):
        read_released(tmp_path / "noise.pkl")
    within: dict[str, object] = {}
    within["itself"] = within
    torch.save(within, tmp_path / "loop.pt")
    with pytest.raises(ValueError, match=r"loop.pt holds no tensors"):
        read_released(tmp_path / "loop.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_released(tmp_path / "empty.pt")
    encoder, decoder = (module.state_dict() for module in ours)
    with pytest.raises(ValueError, match=r"the encoder has no tensor.*'none'.*in this order"):
        size_of({}, decoder)
    with pytest.raises(ValueError, match=r"the decoder has no tensor.*first is 'x\.blocks"):
        size_of(encoder, {f"x.{name}": tensor for name, tensor in decoder.items()})
    with pytest.raises(ValueError, match=r"wrong order"):
        size_of(decoder, encoder)
    with pytest.raises(ValueError, match=r"decoder's blocks.input.w has the shape \(6,\)"):
        size_of(encoder, {"blocks.input.w": torch.zeros(6)})
    with pytest.raises(ValueError, match=r"no tensor 'blocks.group_1.block_1.res_path.conv_1.w'"):
        size_of({k: v for k, v in encoder.items() if "group_1" not in k}, decoder)
    with pytest.raises(ValueError, match=r"the encoder has 10 codes, the decoder 12"):
        size_of(encoder, DalleDecoder(6, WIDTH, BLOCKS, CODE_WIDTH, num_codes=12).state_dict())


def test_missing_and_foreign_tensors_are_refused(
    ours: tuple[DalleEncoder, DalleDecoder],
) -> None:
    encoder, decoder = (dict(module.state_dict()) for module in ours)
    lost = encoder.pop("blocks.group_2.block_1.id_path.w")
    with pytest.raises(ValueError, match=r"missing \['encoder.blocks.group_2.block_1.id_path.w'\]"):
        build(encoder, decoder)
    encoder["blocks.group_2.block_1.id_path.w"] = lost
    encoder["blocks.extra.w"] = lost
    with pytest.raises(ValueError, match=r"left over \['encoder.blocks.extra.w'\]"):
        build(encoder, decoder)


def test_an_import_is_a_folder_that_encodes(
    ours: tuple[DalleEncoder, DalleDecoder], tmp_path: Path
) -> None:
    for name, module in zip(("encoder", "decoder"), ours, strict=True):
        save_file(module.state_dict(), tmp_path / f"{name}.safetensors")
    files = tmp_path / "encoder.safetensors", tmp_path / "decoder.safetensors"
    size = import_dalle_dvae(*files, tmp_path / "dvae")
    assert (size.num_codes, size.blocks) == (CODES, BLOCKS)
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    model = open_tokenizer(RunDirectory(tmp_path / "dvae"))
    assert torch.equal(model.encode(image), build(*map(load_file, files)).encode(image))
    with pytest.raises(ValueError, match="an import does not overwrite"):
        import_dalle_dvae(*files, tmp_path / "dvae")
