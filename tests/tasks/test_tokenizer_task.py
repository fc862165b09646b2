from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lit_eve.losses.likelihood import logit_laplace
from lit_eve.losses.perceptual import PerceptualLoss
from lit_eve.models.tokenizers.gaussian import GaussianBottleneck
from lit_eve.models.tokenizers.gumbel import GumbelQuantizer
from lit_eve.models.tokenizers.residual import ResidualQuantizer
from lit_eve.models.tokenizers.vector import VectorQuantizer
from lit_eve.tasks.tokenizer import TokenizerTask
from lit_eve.tasks.tokenizer_terms import AdversarialTerm, PerceptualTerm
from lit_eve_data.batches import ImageBatch
from tests.tokenizer_training import (
    Images,
    Records,
    fit,
    gumbel_task,
    image,
    task,
    tokenizer,
    vector,
    vector_task,
)

VALIDATE: dict[str, Any] = {
    "limit_val_batches": 2,
    "check_val_every_n_epoch": None,
    "val_check_interval": 3,
}


@pytest.fixture
def batch() -> ImageBatch:
    return ImageBatch(torch.stack([image(0), image(1)]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_loss_is_the_mean_nll_and_beta_over_the_values_of_a_position(batch: ImageBatch) -> None:
    module = gumbel_task()
    quantizer = module.model.quantizer
    assert isinstance(quantizer, GumbelQuantizer)
    quantizer.kl_weight.fill_(6.6)
    torch.manual_seed(3)
    out = module.training_step(batch, 0)
    torch.manual_seed(3)
    reconstruction = module.model(batch.pixels)
    nll = logit_laplace(reconstruction.outputs, reconstruction.target)
    logits = module.model.latent(reconstruction.target).double()
    posterior = torch.log_softmax(logits, 1)
    kl = (posterior.exp() * (posterior + math.log(8))).sum(1)
    # Of the paper, A.2: (sum of the NLL + beta * sum of the KL) / (3 H W), here averaged over 2.
    values = 3 * 16 * 12
    expected = (nll.double().sum() + 6.6 * kl.sum()) / values / 2
    assert out["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert out["train/loss"].item() == out["loss"].item()
    assert set(out) >= {"train/reconstruction", "train/kl", "codebook/kl_nats", "codes"}


def test_a_step_hands_out_codes_by_level(batch: ImageBatch) -> None:
    assert vector_task().training_step(batch, 0)["codes"]["all"].shape == (2, 8, 6)
    stages = [vector(), vector()]
    assert all(isinstance(stage, VectorQuantizer) for stage in stages)
    stacked = ResidualQuantizer(stages)  # type: ignore[arg-type]
    codes = task(tokenizer(stacked)).training_step(batch, 0)["codes"]
    assert list(codes) == ["stage_1", "stage_2"]
    assert task(tokenizer(GaussianBottleneck(4, 12))).training_step(batch, 0)["codes"] == {}


@pytest.mark.parametrize("make", [vector_task, gumbel_task])
def test_training_lowers_the_loss(make: type) -> None:
    module = make()
    images = next(iter(Images()))
    before = float(module.training_step(images, 0)["loss"].detach())
    fit(module, loader=Images(1), max_steps=30)
    assert float(module.training_step(images, 0)["loss"].detach()) < before - 0.2


def test_validation_logs_quality_usage_and_the_price_of_hard_codes() -> None:
    records = Records()
    fit(gumbel_task(), records=records, **VALIDATE)
    values = records.metrics[-1][1]
    assert {"val/loss", "val/reconstruction", "val/kl", "val/psnr", "val/ssim"} <= set(values)
    assert {"val/codebook/usage", "val/codebook/ceiling", "val/codebook/perplexity"} <= set(values)
    # 2 batches of 2 images of 8 x 6 codes.
    assert values["val/codebook/ceiling"] == pytest.approx(1 - (7 / 8) ** 192)
    assert "val/relaxed_gap" in values
    records = Records()
    fit(vector_task(), records=records, **VALIDATE)
    assert "val/relaxed_gap" not in records.metrics[-1][1]


def test_validation_is_of_hard_codes_rounded_to_8_bits() -> None:
    records, module = Records(), vector_task()
    run = fit(module, records=records, **VALIDATE)
    assert run.global_step == 6
    psnr = []
    for batch in Images(2):
        rounded = (module.model.reconstruct(batch.pixels) * 255).round() / 255
        error = (rounded - batch.pixels).square().mean((1, 2, 3))
        psnr += (-10 * error.log10()).tolist()
    assert records.of("val/psnr")[5] == pytest.approx(sum(psnr) / 4, rel=1e-5)


def test_counts_start_afresh_at_every_validation() -> None:
    records = Records()
    fit(vector_task(), records=records, **VALIDATE)
    ceilings = [
        values["val/codebook/ceiling"] for _, values in records.metrics if "val/psnr" in values
    ]
    assert len(ceilings) == 2
    assert ceilings[0] == ceilings[1]


def test_batches_of_other_sizes_go_through_one_training() -> None:
    fit(vector_task(), loader=Images(sizes=((16, 12), (12, 20), (14, 14))))


@pytest.mark.parametrize("value", [float("nan"), 2.0])
def test_bad_pixels_stop_the_training_before_they_reach_the_device(value: float) -> None:
    class Broken(Images):
        def __iter__(self) -> Iterator[ImageBatch]:
            for batch in super().__iter__():
                batch.pixels[0, 0, 0, 0] = value
                yield batch

    with pytest.raises(ValueError, match="but 0 to 1 is needed"):
        fit(vector_task(), loader=Broken())


def test_images_that_do_not_fit_the_stride_stop_the_training() -> None:
    with pytest.raises(ValueError, match=r"15 x 12 pixels do not divide.*e.g. 16 x 12"):
        fit(vector_task(), loader=Images(sizes=((15, 12),)))


def test_pictures_are_originals_and_reconstructions(batch: ImageBatch) -> None:
    assert list(vector_task().pictures(batch.pixels)) == ["original", "hard"]
    shown = gumbel_task().pictures(batch.pixels)
    assert list(shown) == ["original", "hard", "relaxed"]
    assert all(0 <= float(p.min()) <= float(p.max()) <= 1 for p in shown.values())


def test_the_perceptual_term_compares_images_between_minus_1_and_1(batch: ImageBatch) -> None:
    class Distance(torch.nn.Module):
        def forward(self, images: torch.Tensor, originals: torch.Tensor) -> torch.Tensor:
            assert float(originals.min()) < -0.5
            return (images - originals).square().mean((1, 2, 3))

    term = PerceptualTerm(PerceptualLoss(Distance()), weight=3.0)
    module = task(tokenizer(vector()), terms=[term])
    out = module.training_step(batch, 0)
    # Here the distance is the likelihood itself.
    assert out["train/perceptual"].item() == pytest.approx(3 * out["train/reconstruction"].item())
    assert out["loss"].item() == pytest.approx(
        4 * out["train/reconstruction"].item() + out["train/commitment"].item()
    )
    assert all("perceptual" not in name for name in module.state_dict())


def test_both_players_get_their_gradients_from_one_backward_pass(batch: ImageBatch) -> None:
    module = task(tokenizer(vector(), critic=True), terms=[AdversarialTerm(0.5)])
    module.eval()  # the codebook stays where it is
    critic = module.model.discriminator
    assert critic is not None
    out = module.training_step(batch, 0)
    out["loss"].backward()
    real, fake = 2 * batch.pixels - 1, module.model(batch.pixels).outputs.detach()
    loss = (torch.relu(1 - critic(real)).mean() + torch.relu(1 + critic(fake)).mean()) / 2
    expected = torch.autograd.grad(loss, list(critic.parameters()))
    for weight, gradient in zip(critic.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    assert out["train/discriminator"].item() == pytest.approx(loss.item())
    assert all(weight.grad is not None for weight in module.model.encoder.parameters())  # type: ignore[attr-defined]


def test_the_adaptive_weight_makes_both_pulls_equal(batch: ImageBatch) -> None:
    module = task(tokenizer(vector(), critic=True), terms=[AdversarialTerm(1.0)])
    module.eval()  # the codebook stays where it is
    model = module.model
    last = model.decoder.last_weight
    out = module.training_step(batch, 0)
    (both,) = torch.autograd.grad(out["loss"], last)
    reconstruction = model(batch.pixels)
    (pull,) = torch.autograd.grad(
        (reconstruction.outputs - reconstruction.target).square().mean(), last
    )
    generator = both - pull
    assert generator.norm().item() == pytest.approx(pull.norm().item(), rel=0.01)


def test_before_its_start_the_adversarial_loss_is_0_with_gradients_everywhere(
    batch: ImageBatch,
) -> None:
    module = task(tokenizer(vector(), critic=True), terms=[AdversarialTerm(0.8, starts_at=10)])
    out = module.training_step(batch, 0)
    assert out["train/generator"].item() == out["train/discriminator"].item() == 0
    out["loss"].backward()
    assert module.model.discriminator is not None
    gradients = [weight.grad for weight in module.model.discriminator.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_an_adversarial_training_steps_both_players_and_counts_once() -> None:
    module = task(tokenizer(vector(), critic=True), rate=1e-3, terms=[AdversarialTerm(0.8)])
    before = [weight.clone() for weight in kernels(module)]
    run = fit(module, max_steps=4, accumulate_grad_batches=1)
    assert run.global_step == 4
    assert all(not torch.equal(a, b) for a, b in zip(before, kernels(module), strict=True))


def kernels(module: TokenizerTask) -> list[torch.Tensor]:
    assert module.model.discriminator is not None
    return [weight for weight in module.model.discriminator.parameters() if weight.ndim == 4]


def test_an_adversarial_loss_without_a_discriminator_is_refused(batch: ImageBatch) -> None:
    module = task(tokenizer(vector()), terms=[AdversarialTerm()])
    with pytest.raises(ValueError, match="needs a discriminator, but this tokenizer has none"):
        module.training_step(batch, 0)
