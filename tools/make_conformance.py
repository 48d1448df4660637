"""Make entries of the conformance corpus: ``python tools/make_conformance.py [NAME…] [--replace]``.

Without names, every entry that is not there yet. What is there is never made again unless it is named and ``--replace``
is given: files in the field are of that kind, so a change of theirs is a change of the format. Models are trained for
a few steps on drawn images, with fixed seeds on one thread: enough that their layers have the values of trained ones.
Files of formats that this code cannot write (``format-1``, ``format-3``) were made by the code of their time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from compressai.models.base import CompressionModel
from compressai.registry import MODELS
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from licquant import pipeline  # noqa: E402
from licquant.codec.codec import Codec  # noqa: E402
from licquant.codec.files.artifact import Artifact, artifact_id  # noqa: E402
from licquant.codec.files.bitstream import VERSION_WITH_FIELDS  # noqa: E402
from licquant.codec.regions import MIN_SIDE  # noqa: E402
from licquant.config import LayerBits, Plan  # noqa: E402
from licquant.dynamic.lowering import lower_dynamic  # noqa: E402
from licquant.dynamic.stages import dynamic_plan  # noqa: E402
from licquant.images import Extras  # noqa: E402
from licquant.lower import latent_tables  # noqa: E402
from licquant.models.trace import trace_model  # noqa: E402
from licquant.quant.calibrate import collect_statistics  # noqa: E402
from licquant.quant.synthetic import dead_leaves  # noqa: E402
from licquant.train.objective import Objective  # noqa: E402
from tests.conformance.pictures import PICTURES, draws  # noqa: E402
from tests.conformance.run import FOLDER, MANIFEST, digest, digest_of_extras, sha256  # noqa: E402
from tests.dynamic_networks import insert_dynamic, random_selectors  # noqa: E402
from tests.dynamic_programs import UNEVEN, dynamic_artifact  # noqa: E402
from tests.models_for_tests import FirstKind  # noqa: E402

ALLOWED = 2  # by how much more the pixels of other instruction sets may differ from the exact engine's than here
STEPS, SIDE, BATCH, LAMBDA = 120, 64, 4, 0.02
SCALES = np.geomspace(0.11, 32, 24).tolist()  # σ of the tables: few, as they would take most of the space
GDN1, WITH_FIELDS = "gdn1", "with-fields"
HYPERPRIOR, MEANS, ANCHOR, ELIC = "bmshj2018-hyperprior", "mbt2018-mean", "cheng2020-anchor", "elic2022-official"
WIDTHS: dict[str, dict[str, Any]] = {
    "bmshj2018-factorized": {"N": 6, "M": 8},
    "bmshj2018-factorized-relu": {"N": 6, "M": 8},
    HYPERPRIOR: {"N": 6, "M": 8},
    MEANS: {"N": 6, "M": 8},
    "mbt2018": {"N": 6, "M": 8},
    ANCHOR: {"N": 6},
    "cheng2020-attn": {"N": 6},
    "cheng2020-anchor-checkerboard": {"N": 6},
    ELIC: {"N": 6, "M": 8, "groups": [2, 2, 4]},
}
Bits = Callable[[int, LayerBits], LayerBits]  # position of a layer, its widths of 8 bits → its widths


def every_width(index: int, given: LayerBits) -> LayerBits:
    """Weights of 2 to 16 bits by turns, activations of 16 to 2 in another order."""
    return LayerBits(given.weight and 2 + index % 15, 16 - index * 4 % 15)


def uniform(bits: int, index: int, given: LayerBits) -> LayerBits:
    return LayerBits(given.weight and bits, bits)


def trained(name: str) -> CompressionModel:
    """A small model of CompressAI's, or the one with GDN1, after a few steps on drawn images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng, model = np.random.default_rng(0), FirstKind(6, 8) if name == GDN1 else MODELS[name](**WIDTHS[name])
    if name == ELIC:
        _narrow(model)
    objective = Objective(model.train(), LAMBDA, "mse", reduced=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    images = torch.from_numpy(np.stack(dead_leaves(8, 4 * SIDE, seed=9))).permute(0, 3, 1, 2)
    for _ in range(STEPS):
        corners = rng.integers(0, 3 * SIDE, (BATCH, 2)).tolist()
        crops = [images[rng.integers(len(images)), :, y : y + SIDE, x : x + SIDE] for y, x in corners]
        optimizer.zero_grad()
        objective(torch.stack(crops))[0].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    takes_scales = "factorized" not in name and name != ELIC
    model.update(**{"scale_table": SCALES} if takes_scales else {}, force=True)
    return model


def _narrow(model: Any) -> None:
    """ELIC's context networks have 224 and 128 channels whatever N is: 8 here."""
    contexts = model.latent_codec["y"].channel_context
    for name, layers in contexts.items():
        channels = (layers[0].in_channels, 8, 8, layers[-1].out_channels)
        convolutions = [nn.Conv2d(a, b, 5, padding=2) for a, b in pairwise(channels)]
        contexts[name] = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])


def static(name: str, bits: Bits | None = None) -> Artifact:
    """A trained model quantized to 8 bits, or to those."""
    model, images = trained(name), dead_leaves(4, 128)
    plan = pipeline.quantize(model, images).plan
    if bits:
        plan = Plan({layer: bits(index, given) for index, (layer, given) in enumerate(plan.items())})
    return pipeline.quantize(model, images, settings=pipeline.Settings(plan=plan)).artifact


def dynamic(name: str, widths: tuple[int, ...]) -> Artifact:
    """A trained model whose stages choose among the widths; the selectors' weights are random, so choices differ."""
    traced = trace_model(trained(name))
    statistics = collect_statistics(traced, dead_leaves(4, 128))
    network = insert_dynamic(traced, widths, statistics)
    program, parts = lower_dynamic(network, random_selectors(network, statistics))
    plan = dynamic_plan(traced, max(widths))
    return Artifact(traced.family, program, latent_tables(traced), plan, dynamic=parts)


MAKERS: dict[str, Callable[[], Artifact]] = {
    **{name: partial(static, name) for name in WIDTHS},
    "every-width": partial(static, HYPERPRIOR, every_width),
    "every-width-with-means": partial(static, MEANS, every_width),
    "2-bits": partial(static, HYPERPRIOR, partial(uniform, 2)),
    "4-bits": partial(static, "cheng2020-anchor-checkerboard", partial(uniform, 4)),
    "16-bits": partial(static, HYPERPRIOR, partial(uniform, 16)),
    "dynamic": partial(dynamic, HYPERPRIOR, (4, 6, 8)),
    "dynamic-uneven": partial(dynamic_artifact, widths=UNEVEN),
    GDN1: partial(static, GDN1),
    WITH_FIELDS: partial(static, HYPERPRIOR),
}


def pictures_of(name: str) -> tuple[str, str, str]:
    """A scene, one pixel, and one of the others by turns; a strip where there are regions."""
    if name == WITH_FIELDS:
        return "scene", "pixel", "strip"
    others = [picture for picture in PICTURES if picture not in ("scene", "pixel", "strip")]
    return "scene", "pixel", others[list(MAKERS).index(name) % len(others)]


def make(name: str, folder: Path) -> dict[str, Any]:
    """Write the files of an entry; returns its record."""
    data = MAKERS[name]().to_bytes()
    artifact = Artifact.from_bytes(data)
    exact, fast = (Codec(artifact, artifact_id(data), engine, 1) for engine in ("exact", "openvino"))
    (folder / f"{name}.licq").write_bytes(data)
    record: dict[str, Any] = {
        "family": artifact.family,
        "format": int.from_bytes(data[4:6], "little"),
        "sha256": sha256(data),
        "pictures": {},
    }
    for picture in pictures_of(name):
        coded = _with_fields(exact, picture) if name == WITH_FIELDS else exact.encode(PICTURES[picture]())
        latents, pixels = exact.decode_symbols(coded), exact.decode(coded)
        found = int(abs(fast.decode(coded).astype(int) - pixels).max())
        print(f"  {name}.{picture}: {len(coded)} bytes, the engines differ by {found}, σ of pixels {pixels.std():.0f}")
        (folder / f"{name}.{picture}.lic").write_bytes(coded)
        record["pictures"][picture] = {
            "sha256": sha256(coded),
            "y": digest(latents.y),
            "z": digest(latents.z),
            "pixels": digest(pixels),
            "within": found + ALLOWED,
        }
        if coded[4] == VERSION_WITH_FIELDS:
            record["pictures"][picture]["carried"] = digest_of_extras(exact.extras(coded))
    return record


def _with_fields(codec: Codec, picture: str) -> bytes:
    """The picture with one thing of each kind beside it; the strip in regions, which else only large ones have."""
    rgb = PICTURES[picture]()
    alpha = draws(len(picture), *rgb.shape[:2]).astype(np.uint8)
    texts = (b"a colour profile", b"Exif\0\0", b"<x:xmpmeta/>")
    extras = Extras(*(text * rgb.shape[0] for text in texts), alpha=alpha, density=(300.0, 72.5))
    least = patch("licquant.codec.regions.WHOLE_PIXELS", MIN_SIDE * 64), patch("licquant.codec.regions.SIDE", MIN_SIDE)
    with least[0], least[1]:
        return codec.encode(rgb, extras)


def main() -> None:
    """Make what is asked for and write the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="entries; all that are missing, unless named")
    parser.add_argument("--replace", action="store_true", help="make named entries again that are there already")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(MAKERS))
    if unknown:
        parser.error(f"unknown entry {unknown[0]}: choose among {', '.join(MAKERS)}")
    options.folder.mkdir(exist_ok=True)
    path = options.folder / MANIFEST
    manifest = json.loads(path.read_text()) if path.exists() else {}
    there = [name for name in options.names if name in manifest]
    if there and not options.replace:
        parser.error(f"there already: {', '.join(there)}; --replace makes them again, and changes what they prove")
    for name in options.names or [name for name in MAKERS if name not in manifest]:
        manifest[name] = make(name, options.folder)
        path.write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
