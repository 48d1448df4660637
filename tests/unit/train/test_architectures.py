"""Models by name, and what every one of them must do in a training step."""

import pytest
import torch

from licquant.errors import ModelError
from licquant.train import architectures, export
from licquant.train.architectures import build, names, resolve_widths, widths_of
from licquant.train.objective import Noise, Objective, float32_entropy_models


def test_the_image_models_of_one_rate_are_known() -> None:
    assert {
        "bmshj2018-hyperprior",
        "mbt2018-mean",
        "mbt2018",
        "cheng2020-anchor",
        "elic2022-official",
    } <= set(names())
    assert not any("pcc" in name or "vbr" in name or "ssf" in name for name in names())


def test_widths_have_defaults() -> None:
    assert resolve_widths("bmshj2018-hyperprior", None, None) == {"N": 128, "M": 192}
    assert resolve_widths("elic2022-official", None, None) == {"N": 192, "M": 320}
    assert resolve_widths("cheng2020-anchor", 128, None) == {"N": 128}


@pytest.mark.parametrize(
    ("name", "n", "m", "message"),
    [("vgg", None, None, "unknown model 'vgg'"), ("cheng2020-anchor", 128, 192, "no width M")],
)
def test_what_is_not_there_is_refused(name: str, n: int | None, m: int | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_widths(name, n, m)


def test_a_model_that_cannot_be_built_is_said() -> None:
    with pytest.raises(ModelError, match="cannot be built"):
        build("elic2022-official", {"N": 32, "M": 64})  # its first groups have 128 channels alone


def test_fresh_weights_are_a_function_of_the_seed() -> None:
    widths = {"N": 8, "M": 12}
    one, same, other = (build("mbt2018-mean", widths, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["g_a.0.weight"], other["g_a.0.weight"])


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("bmshj2018-hyperprior", {"N": 8, "M": 12}),
        ("cheng2020-attn", {"N": 16}),
        ("elic2022-official", {"N": 16, "M": 144}),
    ],
)
def test_widths_are_read_from_weights(name: str, widths: dict[str, int]) -> None:
    assert widths_of(name, build(name, widths).state_dict(), None, None) == widths


def test_weights_of_another_width_are_refused() -> None:
    state = build("bmshj2018-hyperprior", {"N": 8, "M": 12}).state_dict()
    with pytest.raises(ModelError, match="do not fit"):
        architectures.load_weights(build("bmshj2018-hyperprior", {"N": 8, "M": 16}), state, "x.pt")


@pytest.mark.parametrize("name", names())
def test_every_model_trains_all_its_parameters(name: str) -> None:
    takes_m = "M" in resolve_widths(name, None, None)
    model = build(name, resolve_widths(name, 16, (144 if "elic" in name else 24) if takes_m else None)).train()
    objective = Objective(model, 0.01, "mse", True)
    samples = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    noise = Noise(0, torch.device("cpu"))
    noise.begin(0, 0)
    with float32_entropy_models(model, noise):
        loss, figures = objective(samples)
    assert torch.isfinite(figures).all()
    loss.backward()
    # Distributed training hangs on a parameter that takes no part in the loss.
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    if name != "cheng2020-anchor-checkerboard":  # draws its context's noise by itself
        assert noise.draws >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_every_model_codes_after_its_export(name: str) -> None:
    widths = resolve_widths(name, 16, None) | ({"M": 144} if "elic" in name else {})
    weights = {key: value.detach() for key, value in build(name, widths).named_parameters()}
    model = build(name, widths, seed=1).eval()
    architectures.load_weights(model, export.finished_state(name, widths, weights), name)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        coded = model.compress(x)
        decoded = model.decompress(coded["strings"], coded["shape"])["x_hat"]
        again = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert decoded.shape == x.shape
    assert torch.equal(decoded, again)


@pytest.mark.parametrize("name", names())
def test_buffers_are_the_same_in_every_process(name: str) -> None:
    """Distributed training does not send them: they may depend on nothing random."""
    widths = resolve_widths(
        name, 16, (144 if "elic" in name else 24) if "M" in resolve_widths(name, None, None) else None
    )
    one, other = (dict(build(name, widths, seed).named_buffers()) for seed in (0, 1))
    assert one.keys() == other.keys() != set()
    assert all(torch.equal(one[key], other[key]) for key in one)


# --- starting from another model ----------------------------------------------------------------------------


def test_parts_that_agree_are_taken_from_another_model() -> None:
    widths = {"N": 8, "M": 12}
    mean, joint = build("mbt2018-mean", widths, 1), build("mbt2018", widths, 2)
    fresh = {name: value.clone() for name, value in joint.state_dict().items()}
    start = architectures.start_from(joint, mean.state_dict(), "mean.pt")
    assert set(start.taken) == {"g_a", "g_s", "h_a", "h_s", "entropy_bottleneck"}
    assert str(start).endswith("; new: entropy_parameters, context_prediction")
    for name, value in joint.named_parameters():
        source = mean.state_dict() if name.partition(".")[0] in start.taken else fresh
        assert torch.equal(value, source[name]), name


def test_parts_that_a_model_lacks_are_left() -> None:
    widths = {"N": 8, "M": 12}
    start = architectures.start_from(build("mbt2018-mean", widths), build("mbt2018", widths).state_dict(), "joint.pt")
    assert (set(start.left), start.new) == ({"entropy_parameters", "context_prediction"}, ())


def test_a_part_is_taken_whole_or_not_at_all() -> None:
    """Some layers of h_s agree between the hyperprior and mbt2018-mean where N = M, others not."""
    widths = {"N": 8, "M": 8}
    mean = build("mbt2018-mean", widths, 1)
    before = mean.h_s[0].weight.clone()
    start = architectures.start_from(mean, build("bmshj2018-hyperprior", widths, 2).state_dict(), "scale.pt")
    assert (set(start.taken), start.new) == ({"g_a", "g_s", "h_a", "entropy_bottleneck"}, ("h_s",))
    assert torch.equal(mean.h_s[0].weight, before)


def test_a_model_of_its_own_kind_is_taken_whole() -> None:
    widths = {"N": 8, "M": 12}
    one, other = build("mbt2018-mean", widths, 1), build("mbt2018-mean", widths, 2)
    start = architectures.start_from(other, one.state_dict(), "one.pt")
    assert start.whole
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.named_parameters())


@pytest.mark.parametrize("lost", ["h_s.2.bias", "g_a.1.beta"])
def test_weights_of_no_whole_model_are_refused(lost: str) -> None:
    widths = {"N": 8, "M": 12}
    state = build("mbt2018-mean", widths).state_dict()
    del state[lost]
    for name in ("mbt2018-mean", "mbt2018"):
        with pytest.raises(ModelError, match="do not fit"):
            architectures.start_from(build(name, widths), state, "x.pt")


def test_an_entropy_bottleneck_alone_is_nothing_to_start_from() -> None:
    state = build("cheng2020-anchor", {"N": 8}).state_dict()
    with pytest.raises(ModelError, match="do not fit"):
        architectures.start_from(build("bmshj2018-hyperprior", {"N": 8, "M": 12}), state, "x.pt")
