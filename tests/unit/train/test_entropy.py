"""Noise by sample, and likelihoods in float32 under autocast."""

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional

from licquant.train.objective import Noise, float32_entropy_models

CPU = torch.device("cpu")


def noise(step: int = 3, first_sample: int = 0) -> Noise:
    made = Noise(seed=1, device=CPU)
    made.begin(step, first_sample)
    return made


def test_noise_is_uniform_and_reproducible() -> None:
    values = torch.empty(4, 6, 50, 50)
    one = noise().like(values, 4, axis=0)
    assert torch.equal(one, noise().like(values, 4, axis=0))
    assert not torch.equal(one, noise(step=4).like(values, 4, axis=0))
    assert -0.5 <= one.min() < -0.49
    assert 0.49 < one.max() <= 0.5
    assert one.mean().abs() < 0.01
    assert one.var() == pytest.approx(1 / 12, rel=0.02)
    assert not torch.equal(one[0], one[1])


def test_two_draws_of_one_step_differ() -> None:
    source = noise()
    values = torch.empty(1, 100)
    assert not torch.equal(source.like(values, 1, 0), source.like(values, 1, 0))


@pytest.mark.parametrize("model", [EntropyBottleneck(6), GaussianConditional(None)], ids=["bottleneck", "gaussian"])
def test_shares_draw_together_what_the_joint_batch_draws(model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    latent, scales = 3 * torch.randn(4, 6, 5, 7), torch.rand(4, 6, 5, 7) + 0.5
    rest = () if isinstance(model, EntropyBottleneck) else (scales,)

    def run(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        with float32_entropy_models(model, noise(first_sample=first)):
            return model.train()(latent[first:last], *(value[first:last] for value in rest))

    joint, parts = run(0, 4), [run(0, 2), run(2, 4)]
    values, likelihoods = (torch.cat([part[index] for part in parts]) for index in range(2))
    assert torch.equal(values, joint[0])
    torch.testing.assert_close(likelihoods, joint[1])  # the matrix products' order may differ


def test_likelihoods_are_those_of_float32_under_autocast() -> None:
    torch.manual_seed(0)
    model = EntropyBottleneck(6).train()
    latent = torch.randn(2, 6, 4, 4).bfloat16()
    with float32_entropy_models(model, noise()):
        _, expected = model(latent.float())
    with torch.autocast("cpu", torch.bfloat16), float32_entropy_models(model, noise()):
        _, likelihoods = model(latent)
    assert torch.equal(likelihoods, expected)


def test_afterwards_the_models_are_as_before() -> None:
    model = EntropyBottleneck(2)
    before = set(model.__dict__)
    with pytest.raises(KeyError), float32_entropy_models(model, noise()):
        raise KeyError
    assert set(model.__dict__) - {"batch_in_use"} == before
