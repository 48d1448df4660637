"""The QDQ form: operations within a unit of the reference, pixels within the bound that docs/onnx.md states."""

import re
from pathlib import Path

import numpy as np
import pytest

import licquant
from licquant.codec.files.artifact import Artifact
from licquant.onnx_export import quantized as quantized_form
from licquant.onnx_export.folder import export
from licquant.onnx_export.graph import QUANTIZED_OPSET, Graph
from licquant.onnx_export.models import Models
from licquant.onnx_export.quantized import emit_quantized
from licquant.onnx_export.sums import stored_type
from licquant.program import reference
from licquant.program.ops import Sigmoid
from licquant.program.part import Part
from licquant.program.saturation import int8_layers, laid_out, saturates
from tests.formats.test_second_reader import CORPUS, READ
from tests.onnx_models import LEVELS, kernels_saturate, onnx, onnxruntime, options, run, stored  # skips without onnx
from tests.program_strategies import gated_part, random_part

STATIC = [name for name in READ if not name.startswith("dynamic")]
EMBEDDED = sorted((Path(licquant.__file__).parent / "assets").glob("*.licq"))


def difference(part: Part, seed: int, level: object = LEVELS[-1]) -> np.ndarray:
    """|stored integers of the QDQ form − those of the reference| for random input.

    Of fixed point without what float32 may lose: 2^-21 of the largest value, and all beyond ±2^30.
    """
    graph, read, written = Graph(part.name, QUANTIZED_OPSET), part.input_grid, part.output_grid
    x = graph.input("x", stored_type(read), [1, read.channels, "h", "w"])
    graph.output("y", emit_quantized(graph, part, x), stored_type(written), [1, written.channels, "h2", "w2"])
    low, high = read.range
    q = np.random.default_rng(seed).integers(low, high + 1, (read.channels, 7, 10))
    found = run(graph.model({}), level, x=stored(part, q))[0][0]
    wanted = reference.run(part, q)
    if written.bits < 32:
        return abs(found.astype(np.int64) - wanted)
    wanted = np.clip(wanted, -(1 << 30), 1 << 30)
    return np.maximum(abs(found.astype(np.int64) - wanted) - (abs(wanted).max() >> 21), 0)


@pytest.mark.parametrize(("bits", "weight_bits"), [(2, 2), (4, 8), (8, 8), (8, 4), (9, 5), (8, 12), (12, 16), (16, 16)])
@pytest.mark.parametrize("make", [random_part, gated_part])
@pytest.mark.parametrize("seed", range(2))
def test_each_operation_is_within_a_unit(make, bits, weight_bits, seed):
    """One after another, each on what the reference makes of the one before; of 16 bits, float32 leaves two units."""
    part = make(seed, bits, weight_bits)
    for op in part.operations:
        if len(op.inputs) == 1 and not isinstance(op, Sigmoid):  # whose table is a random one here
            alone = Part(op.name, part.input_grids(op)[0], (type(op)(**{**vars(op), "inputs": ("input",)}),))
            off = difference(alone, seed)
            assert off.max() <= (1 if op.grid.bits <= 8 else 2), op
            assert (off > 0).mean() < 0.1, op


def test_the_comparison_can_fail():
    """A ratio that is 2 % too large is found."""
    part = random_part(0, 8, 8)
    op = next(op for op in part.operations if hasattr(op, "rescaling") and op.grid.bits == 8 and hasattr(op, "weight"))
    alone = Part(op.name, part.input_grids(op)[0], (type(op)(**{**vars(op), "inputs": ("input",)}),))
    larger = type(op.rescaling)(op.rescaling.positive * 51 // 50, op.rescaling.negative, op.rescaling.shift)
    wrong = Part(op.name, alone.input_grid, (type(op)(**{**vars(alone.operations[0]), "rescaling": larger}),))
    q = np.random.default_rng(0).integers(0, 256, (alone.input_grid.channels, 7, 10))
    assert difference(alone, 0).max() <= 1
    assert (reference.run(wrong, q) != reference.run(alone, q)).any()


@pytest.mark.parametrize("name", STATIC)
def test_every_model_of_the_corpus_has_the_form(name, tmp_path):
    """Checked by onnx, with the inputs and outputs of the exact ones; pixels of random symbols lie near theirs."""
    export(CORPUS / f"{name}.licq", tmp_path / "out")
    rgb = np.random.default_rng(5).integers(0, 256, (1, 70, 90, 3), dtype=np.uint8)
    found = {}
    for kind in ("analysis", "synthesis"):
        exact, quantized = (onnx.load(str(tmp_path / "out" / home / f"{kind}.onnx")) for home in (".", "qdq"))
        onnx.checker.check_model(quantized, full_check=True)
        assert [entry.version for entry in quantized.opset_import] == [QUANTIZED_OPSET]
        assert quantized.graph.input == exact.graph.input
        assert quantized.graph.output == exact.graph.output
        found[kind] = exact, quantized
    names = [one.name for one in found["analysis"][0].graph.output]
    coded = dict(zip(names, run(found["analysis"][0], image=rgb), strict=True))
    assert [one.shape for one in run(found["analysis"][1], image=rgb)] == [coded[one].shape for one in names]
    y = coded["y_symbols"] if "y_symbols" in coded else coded["y"] >> 8
    given = {"y_symbols": y.astype(np.int32), "means": np.zeros_like(y, dtype=np.int32)}
    inputs = {one.name: given[one.name] for one in found["synthesis"][0].graph.input}
    exact, quantized = (run(model, **inputs)[0].astype(int) for model in found["synthesis"])
    in_bytes = [op for op in int8_layers(laid_out(g_s(CORPUS / f"{name}.licq"))) if op.grid.bits <= 8]
    wrong_here = kernels_saturate() and any(map(saturates, in_bytes))
    assert abs(exact - quantized).mean() <= (2 if wrong_here else 0.5)


def g_s(model: Path) -> Part:
    return Artifact.from_bytes(model.read_bytes()).program["g_s"]


@pytest.mark.skipif(not kernels_saturate(), reason="ONNX Runtime's kernels do not saturate on this processor")
def test_laid_out_it_does_not_saturate(monkeypatch):
    """What the layout is for: seen by leaving it out."""
    artifact, pixels = Artifact.from_bytes((CORPUS / "mbt2018.licq").read_bytes()), []
    models = Models(artifact, {})
    y = np.random.default_rng(5).integers(-9, 10, (1, g_s(CORPUS / "mbt2018.licq").input_grid.channels, 5, 6), np.int32)
    given = {"y_symbols": y, "means": np.zeros_like(y)}
    exact = run(models.all()["synthesis"], **given)[0].astype(int)
    for layout in (laid_out, lambda part: part):
        monkeypatch.setattr(quantized_form, "laid_out", layout)
        pixels.append(run(models.quantized()["synthesis"], **given)[0].astype(int))
    right, wrong = (abs(exact - found).mean() for found in pixels)
    assert right <= 0.5 < wrong


@pytest.mark.parametrize("model", EMBEDDED, ids=lambda path: path.stem[-6:])
def test_pixels_are_within_the_stated_bound(model):
    page = (Path(__file__).parents[3] / "docs" / "onnx.md").read_text(encoding="utf-8")
    (bound,) = re.findall(r"in QDQ form.*?at most (\d+)", page, re.DOTALL)
    models = Models(Artifact.from_bytes(model.read_bytes()), {})
    exact, quantized = models.all(), models.quantized()
    rgb = licquant.read_image(model.parent / "images" / sorted(p.name for p in (model.parent / "images").iterdir())[0])
    z, y = run(exact["analysis"], image=rgb[None, :128, :192])
    means = run(exact["hyper"], z_symbols=z)[1]
    pixels = [run(one["synthesis"], y_symbols=y, means=means)[0].astype(int) for one in (exact, quantized)]
    assert abs(pixels[0] - pixels[1]).max() <= int(bound)


def test_kernels_where_onnx_runtime_has_them(tmp_path):
    """A layer whose input and output are bytes runs as QLinearConv; those that write 16 bits do not."""
    models = Models(Artifact.from_bytes(EMBEDDED[0].read_bytes()), {}).quantized()
    for name, wanted in (("analysis", 2), ("synthesis", 1)):
        chosen = options()
        chosen.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        onnxruntime.InferenceSession(models[name].SerializeToString(), chosen, ["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(chosen.optimized_model_filepath).graph.node]
        assert kinds.count("QLinearConv") == wanted, name
