"""Channels that no calibration image uses: taken out, with what images that do not use them give left as it was."""

from pathlib import Path

import pytest
import torch

from licquant.codec.codec import load
from licquant.commands.app import main
from licquant.images import read_image, write_image
from licquant.models.trace import trace_model
from licquant.quant.calibrate import Calibrated, calibrate, to_tensor
from licquant.quant.dataflow import code, medians_of, run_float
from licquant.quant.pruning import prune
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import save_small_checkpoint, small_hyperprior, small_model

DEAD = [1, 4, 5]  # of the channels of z
SILENT = [0, 7]  # of those of y


def with_dead_channels(model):
    """A model whose z has channels that never leave their medians, which are not 0, and whose y some that stay at 0."""
    with torch.no_grad():
        medians = trace_model(model).bottleneck.quantiles[:, 0, 1]
        medians.copy_(torch.linspace(-0.4, 0.3, len(medians)))
        last = [m for m in model.h_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.weight.mul_(200)  # so that all others are used
        last.weight[DEAD] *= 1e-6
        last.bias[DEAD] = medians[DEAD]
        writes_y = [m for m in model.g_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        writes_y.weight[SILENT] *= 1e-6
        writes_y.bias[SILENT] = 0
    return model.eval()


def coded(calibrated: Calibrated, image):
    with torch.no_grad():
        return code(calibrated.traced, run_float(calibrated.traced), to_tensor(image))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (small_hyperprior, {"z": (3, 8), "y": (2, 12)}),
        (lambda: small_model("mbt2018-mean"), {"z": (3, 8)}),
        (lambda: small_model("cheng2020-anchor"), {"z": (3, 12)}),
    ],
)
def test_images_that_do_not_use_them_are_coded_as_before(model, expected):
    images = dead_leaves(3, 192)
    whole = calibrate(with_dead_channels(model()), images)
    pruned = prune(whole)
    assert pruned.channels == expected
    for image in (*images, *dead_leaves(2, 128, seed=5)):
        before, after = coded(whole, image), coded(pruned.calibrated, image)
        assert float(after.bits) == pytest.approx(float(before.bits), rel=1e-4)
        torch.testing.assert_close(after.pixels, before.pixels, rtol=1e-3, atol=1e-4)


def test_what_they_were_written_and_read_by_is_zero_but_for_one_that_stands_for_all():
    whole = calibrate(with_dead_channels(small_hyperprior()), dead_leaves(2, 128))
    untouched = {name: value.clone() for name, value in whole.traced.model.state_dict().items()}
    model = prune(whole).calibrated.traced.model
    writes_z = [m for m in model.h_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    assert not writes_z.weight[DEAD].any()
    torch.testing.assert_close(writes_z.bias[DEAD], medians_of(whole.traced)[DEAD])
    reads_z = next(m for m in model.h_s.modules() if isinstance(m, torch.nn.ConvTranspose2d))
    assert [bool(reads_z.weight[channel].any()) for channel in DEAD].count(True) == 1
    assert all(reads_z.weight[channel].any() for channel in range(8) if channel not in DEAD)
    reads_y = next(m for m in model.g_s.modules() if isinstance(m, torch.nn.ConvTranspose2d))
    assert not reads_y.weight[SILENT].any()
    assert not next(m for m in model.h_a.modules() if isinstance(m, torch.nn.Conv2d)).weight[:, SILENT].any()
    for name, value in whole.traced.model.state_dict().items():
        assert torch.equal(value, untouched[name]), name


@pytest.mark.parametrize(("end", "by"), [("high", 0.6), ("low", -0.6)])
def test_a_channel_that_one_image_uses_stays(end, by):
    whole = calibrate(with_dead_channels(small_hyperprior()), dead_leaves(2, 128))
    seen = whole.statistics[whole.traced.graphs["h_a"].output]
    getattr(seen, end)[DEAD[0]] += by
    pruned = prune(whole)
    assert pruned.channels["z"] == (len(DEAD) - 1, 8)
    writes_z = [m for m in pruned.calibrated.traced.model.h_a.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    assert [bool(writes_z.weight[channel].any()) for channel in DEAD] == [True, False, False]


def test_as_a_command_the_file_is_smaller_and_decodes(tmp_path: Path, capsys):
    checkpoint = save_small_checkpoint(tmp_path)
    torch.save(with_dead_channels(small_hyperprior()).state_dict(), checkpoint)
    calib = tmp_path / "calib"
    calib.mkdir()
    for number, image in enumerate(dead_leaves(2, 128)):
        write_image(calib / f"{number}.png", image)
    words = [
        "quantize",
        "--checkpoint",
        checkpoint,
        "--model",
        "bmshj2018-hyperprior",
        "--calib",
        calib,
        "--steps",
        "0",
    ]
    sizes = {}
    for name, more in (("whole", []), ("pruned", ["--prune"])):
        target = tmp_path / f"{name}.licq"
        with pytest.raises(SystemExit) as stop:
            main([*map(str, words), *more, "-o", str(target)])
        assert not stop.value.code
        sizes[name] = target.stat().st_size
    assert "3 of 8 channels of z taken out; 2 of 12 channels of y taken out" in " ".join(
        capsys.readouterr().out.split()
    )
    assert sizes["pruned"] < sizes["whole"]
    codec, image = load(tmp_path / "pruned.licq"), read_image(calib / "0.png")
    assert codec.decode(codec.encode(image)).shape == image.shape
