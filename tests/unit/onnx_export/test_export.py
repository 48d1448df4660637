"""Exported folders: real files decoded by the example, every model against licquant, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import licquant
from licquant.codec.codec import Codec
from licquant.codec.entropy.tables import CodingTables, gaussian_pmfs
from licquant.codec.files.artifact import Artifact, artifact_id
from licquant.codec.latents.bottleneck import BottleneckCoder
from licquant.codec.latents.gaussian import GaussianQuantizer
from licquant.codec.latents.hyperprior import GaussianCoder
from licquant.commands.app import main
from licquant.config import LayerBits, Plan
from licquant.errors import ArtifactError, ExportError
from licquant.images import write_folder
from licquant.onnx_export import latents
from licquant.onnx_export.folder import export, exported
from licquant.onnx_export.graph import Graph
from licquant.program import ops
from tests.formats.test_second_reader import CORPUS, MANIFEST, READ, digest
from tests.latent_programs import FAMILIES, random_latents, random_program, random_tables
from tests.onnx_models import (  # first: skips without onnx
    EXAMPLE,
    LEVELS,
    example,
    onnx,
    onnxruntime,
    options,
    run,
    types_of,
)

STATIC = [name for name in READ if not name.startswith("dynamic")]
ASSETS = Path(licquant.__file__).parent / "assets"
EMBEDDED = ASSETS / "bmshj2018-hyperprior-lambda0.0130.licq"
IDENTITY = "00" * 8
PLANE = ["y_height", "y_width"]
FREE = {  # sides of inputs
    "image": ["height", "width"],
    "z_symbols": ["z_height", "z_width"],
    "neighbours": ["positions"],
    "known": ["positions"],
    "time": [],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → exported folder."""
    home = tmp_path_factory.mktemp("corpus")
    for name in STATIC:
        export(CORPUS / f"{name}.licq", home / name)
    return {name: home / name for name in STATIC}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded") / "model"
    export(EMBEDDED, folder)
    return folder


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft stripes and some noise."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((height, width))
    waves = np.stack([np.sin(row / (5 + c)) + np.cos(column / (9 - c)) for c in range(3)], axis=-1)
    return np.clip(128 + 50 * waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


# --- real files


@pytest.mark.parametrize("name", STATIC)
def test_the_example_decodes_every_file_of_the_corpus(name, corpus):
    decoder = example().Decoder(corpus[name], options())
    for kind, wanted in MANIFEST[name]["pictures"].items():
        found = decoder.decode((CORPUS / f"{name}.{kind}.lic").read_bytes())
        assert digest(found) == wanted["pixels"], kind


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "mbt2018", "elic2022-official", "16-bits"])
def test_at_every_level_of_optimization(name, level, corpus):
    """One wrong index or mean and the string would not end where it does."""
    decoder = example().Decoder(corpus[name], options(level))
    found = decoder.decode((CORPUS / f"{name}.scene.lic").read_bytes())
    assert digest(found) == MANIFEST[name]["pictures"]["scene"]["pixels"]


@pytest.mark.parametrize("size", [(1, 1), (40, 100), (129, 64)])
def test_a_file_of_an_embedded_model(size, embedded):
    """Coded by the fast engine, decoded as the exact one does."""
    data = licquant.load(EMBEDDED).encode(picture(*size))
    wanted = licquant.load(EMBEDDED, engine="exact").decode(data)
    np.testing.assert_array_equal(example().Decoder(embedded, options()).decode(data), wanted)


def test_the_example_as_people_start_it(embedded, tmp_path):
    codec = licquant.load(EMBEDDED)
    coded, output = tmp_path / "a.lic", tmp_path / "a.ppm"
    coded.write_bytes(codec.encode(picture(70, 90)))

    def started(folder: Path, file: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, str(EXAMPLE), str(folder), str(file), str(output)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert started(embedded, coded).returncode == 0
    wanted = licquant.load(EMBEDDED, engine="exact").decode(coded.read_bytes())
    np.testing.assert_array_equal(licquant.read_image(output), wanted)
    for content, says in (
        ((CORPUS / "mbt2018.pixel.lic").read_bytes(), "coded with model"),
        (coded.read_bytes()[:-9], "not an undamaged .lic file"),
        (bytes(1000), "not an undamaged .lic file"),
        (b"", "not an undamaged .lic file"),
    ):
        (tmp_path / "bad.lic").write_bytes(content)
        done = started(embedded, tmp_path / "bad.lic")
        assert done.returncode == 1
        assert says in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_example_has_a_hundred_lines_and_needs_numpy_and_onnxruntime_alone():
    import ast

    content = EXAMPLE.read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in content.splitlines()) <= 100
    tree = ast.parse(content)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


@pytest.mark.parametrize("model", sorted(ASSETS.glob("*.licq")), ids=lambda path: path.stem[-6:])
def test_pixels_are_within_the_stated_bound_of_the_fast_engine(model, tmp_path):
    page = (EXAMPLE.parents[1] / "docs" / "onnx.md").read_text(encoding="utf-8")
    (bound,) = re.findall(r"by at most (\d+)", page)
    export(model, tmp_path / "out")
    codec, decoder = licquant.load(model), example().Decoder(tmp_path / "out", options())
    data = codec.encode(picture(128, 192))
    difference = abs(codec.decode(data).astype(int) - decoder.decode(data))
    assert difference.max() <= int(bound)


@pytest.mark.parametrize("name", [name for name in STATIC if "factorized" not in name])
def test_a_runtime_that_computes_otherwise_is_found(name, corpus, tmp_path):
    """One weight or constant of hyper.onnx another: what a runtime does to it is as good as that."""
    folder = tmp_path / "altered"
    shutil.copytree(corpus[name], folder)
    model = onnx.load(str(folder / "hyper.onnx"))
    weights = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.UINT8]
    largest = max(weights, key=lambda one: len(one.raw_data))
    largest.raw_data = bytes(byte ^ 16 for byte in largest.raw_data)
    (folder / "hyper.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SystemExit, match=r"this runtime computes hyper\.onnx wrongly"):
        example().Decoder(folder, options())


# --- every model against licquant


@pytest.mark.parametrize("name", [*STATIC, "embedded"])
def test_analysis_gives_what_the_exact_engine_codes(name, corpus, embedded):
    folder, model = (embedded, EMBEDDED) if name == "embedded" else (corpus[name], CORPUS / f"{name}.licq")
    codec = licquant.load(model, engine="exact")
    for height, width in ((50, 90), (1, 1), (64, 64)):
        rgb = picture(height, width)
        y, _ = codec._analysed(rgb)
        found = dict(zip(*named(folder / "analysis.onnx", image=rgb[None]), strict=True))
        coded = codec.analyse(rgb)
        if "y" in found:
            np.testing.assert_array_equal(found["y"][0], y)
        else:
            symbols = found["y_symbols"]
            np.testing.assert_array_equal(restored(folder, symbols, found.get("z_symbols"))[0], coded.y)
        if "z_symbols" in found:
            np.testing.assert_array_equal(found["z_symbols"][0], coded.z)


@pytest.mark.parametrize("name", [*STATIC, "embedded"])
def test_the_margin_is_what_a_piece_depends_on(name, corpus, embedded):
    """Pieces of 2×2 positions with that margin are the whole's; of some models the margin is the least that does."""
    folder = embedded if name == "embedded" else corpus[name]
    record = json.loads((folder / "tables.json").read_text())["synthesis"]
    size, stride, margin = 2 * record["margin"] + 5, record["stride"], record["margin"]
    shape = 1, record["channels"], size, size
    y = np.random.default_rng(3).integers(-3, 4, shape, dtype=np.int32)
    session = onnxruntime.InferenceSession(str(folder / "synthesis.onnx"), options(), ["CPUExecutionProvider"])
    reads = [one.name for one in session.get_inputs()]
    assert session.get_inputs()[0].shape[1] == record["channels"]

    def synthesised(first: int, last: int) -> np.ndarray:
        part = np.ascontiguousarray(y[:, :, first:last, first:last])
        inputs = {"y_symbols": part, "means": np.zeros_like(part)}
        return session.run(None, {key: inputs[key] for key in reads})[0][0]

    whole = synthesised(0, size)
    assert whole.shape == (size * stride, size * stride, 3)
    for place in (0, margin + 1, size - 2):
        first = max(0, place - margin)
        found = synthesised(first, min(size, place + 2 + margin))[(place - first) * stride :][: 2 * stride]
        wanted = whole[place * stride :][: 2 * stride]
        columns = slice(place * stride, (place + 2) * stride)
        np.testing.assert_array_equal(found[:, (place - first) * stride :][:, : 2 * stride], wanted[:, columns])


@pytest.mark.parametrize("name", [*STATIC, "embedded"])
def test_the_margin_is_what_a_piece_of_an_image_depends_on(name, corpus, embedded):
    """What is coded of one position, from the pixels of so many positions around it, is what the whole image gives."""
    folder = embedded if name == "embedded" else corpus[name]
    record = json.loads((folder / "tables.json").read_text())
    stride, margin = record["stride"], record["analysis"]["margin"]
    rgb = np.random.default_rng(3).integers(0, 256, (stride, (2 * margin + 3) * stride - 5, 3), dtype=np.uint8)
    whole = run((folder / "analysis.onnx").read_bytes(), image=rgb[None])
    for place in (0, margin + 1, 2 * margin + 2):
        first = max(0, place - margin)
        piece = np.ascontiguousarray(rgb[:, first * stride : (place + margin + 1) * stride])
        for part, wanted in zip(run((folder / "analysis.onnx").read_bytes(), image=piece[None]), whole, strict=True):
            ratio = wanted.shape[2]  # of one coded row
            found = part[..., (place - first) * ratio :][..., :ratio]
            np.testing.assert_array_equal(found, wanted[..., place * ratio :][..., :ratio])


def named(file: Path, **inputs: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    names = [output.name for output in onnx.load(str(file)).graph.output]
    return names, run(file.read_bytes(), **inputs)


def restored(folder: Path, symbols: np.ndarray, z: np.ndarray | None) -> np.ndarray:
    """ŷ from symbols; that of the factorized family is compared by its symbols' table-free form, the exact coder's."""
    if z is None:
        artifact = Artifact.from_bytes((CORPUS / f"{folder.name}.licq").read_bytes())
        return Codec(artifact, bytes(8), "exact").coder._restore(symbols[0])[None]
    _, means = run((folder / "hyper.onnx").read_bytes(), z_symbols=z)
    bits = json.loads((folder / "tables.json").read_text())["fraction_bits"]["y_hat"]
    return (symbols << bits) + means


def artifact_of(family: str, seed: int = 0) -> Artifact:
    """Random parts, every channel with a zero point of its own."""
    program = random_program(family, seed=seed)
    return Artifact(family, program, random_tables(program, family), Plan({"g_a.0": LayerBits(8, 8)}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 1)])
def test_strings_of_random_models(family, size, tmp_path):
    artifact = artifact_of(family)
    coder = Codec(artifact, bytes(8), "exact").coder
    y, z = random_latents(artifact.program, size, seed=7)
    strings, y_hat = coder.encode(y, z), coder.quantize(y, z)
    write_folder(tmp_path / "out", exported(artifact, IDENTITY))
    module = example()
    coded = size if z.size else y.shape[1:]
    stacks = [module.Stack(one) for one in strings]
    symbols, *means = module.Decoder(tmp_path / "out", options()).latents(stacks, *coded)
    if isinstance(coder, GaussianCoder):
        exact = symbols.astype(np.int64) << coder.quantizer.output_bits
        np.testing.assert_array_equal(exact + means[0], y_hat)
    else:
        np.testing.assert_array_equal(symbols, coder.latent.round(y))
    assert not any(stack.words or stack.state != 1 << 24 for stack in stacks)


@pytest.mark.parametrize("family", [name for name in FAMILIES if "hyperprior" in name])
def test_hyper_of_symbols_beyond_all_limits(family):
    """Whatever is decoded, table and mean are licquant's: the ends of int32, and thresholds that σ meets exactly."""
    artifact = artifact_of(family)
    coder = Codec(artifact, bytes(8), "exact").coder
    content = exported(artifact, IDENTITY)["hyper.onnx"]
    rng = np.random.default_rng(1)
    for scale in (3, 1000, 1 << 23, (1 << 31) - 1):
        z = rng.integers(-scale, scale + 1, (artifact.program["h_s"].input_grid.channels, 3, 4)).astype(np.int32)
        parameters = coder.synthesise_hyper(coder.hyper.restore(z))
        sigma, mean = np.split(parameters, 2) if "mean" in family else (parameters, np.zeros_like(parameters))
        for level in LEVELS:
            index, means = run(content, level, z_symbols=z[None])
            np.testing.assert_array_equal(index[0], coder.tables.level(sigma))
            np.testing.assert_array_equal(means[0], coder.quantizer.mean(mean))


INT32 = np.array([-(1 << 31) + 1, -(1 << 23), -(1 << 22) - 1, -129, -128, -1, 0, 1, 127, 128, 1 << 22, (1 << 31) - 1])


def evaluated(emit: Callable[..., str], *inputs: np.ndarray) -> np.ndarray:
    """What a function of ``latents`` makes of int32 vectors, as tensors of one channel."""
    graph = Graph("formula")
    names = [graph.input(f"x{i}", np.int32, [1, 1, 1, "n"]) for i in range(len(inputs))]
    graph.output("y", emit(graph, *names), np.int32, [1, 1, 1, "n"])
    tensors = (x.astype(np.int32)[None, None, None] for x in inputs)
    return run(graph.model({}), **dict(zip(names, tensors, strict=True)))[0].ravel()


@pytest.mark.parametrize("bits", [0, 8, 16])
@pytest.mark.parametrize("median", [0, 77, -(1 << 30) + 1])
def test_symbols_and_what_they_stand_for_at_the_ends_of_int32(bits, median):
    tables = CodingTables.from_probabilities(*gaussian_pmfs([1.0]))
    coder, plane = BottleneckCoder(tables, np.array([median]), bits), INT32[None, None]
    found = evaluated(lambda graph, x: latents.bottleneck_restored(graph, coder, x), INT32)
    np.testing.assert_array_equal(found, coder.restore(plane).ravel())
    found = evaluated(lambda graph, x: latents.bottleneck_symbols(graph, coder, x), INT32)
    np.testing.assert_array_equal(found, coder.round(plane).ravel())


@pytest.mark.parametrize(
    ("latent", "parameter", "output"), [(0, 0, 0), (8, 10, 8), (8, 16, 0), (16, 16, 16), (16, 4, 3)]
)
def test_means_symbols_and_latents_at_the_ends_of_int32(latent, parameter, output):
    tables = artifact_of(FAMILIES[1]).tables
    quantizer = GaussianQuantizer(tables, latent, parameter, output)
    first, second = (side.ravel() for side in np.meshgrid(INT32, INT32))
    mean = quantizer.mean(first)
    np.testing.assert_array_equal(evaluated(lambda graph, x: latents.means(graph, quantizer, x), first), mean)
    found = evaluated(lambda graph, y, mean: latents.gaussian_symbols(graph, quantizer, y, mean), second, mean)
    np.testing.assert_array_equal(found, quantizer.symbols(second, mean))
    found = evaluated(lambda graph, s, mean: latents.gaussian_restored(graph, quantizer, s, mean), second, mean)
    np.testing.assert_array_equal(found, quantizer.restore(second, mean))


@pytest.mark.parametrize("thresholds", [[], [5], [-3, 0, 0, 7, 7, (1 << 31) - 1], list(range(-10, 200, 3))])
def test_table_indices(thresholds):
    graph = Graph("index")
    sigma = graph.input("sigma", np.int32, [1, "n"])
    graph.output("index", latents.table_index(graph, np.array(thresholds, dtype=np.int64), sigma), np.int32, [1, "n"])
    end = (1 << 31) - 1
    values = np.array([[-end, -4, -3, -1, 0, 1, 4, 5, 6, 7, 8, 198, 1000, end - 1, end]], np.int32)
    (found,) = run(graph.model({}), sigma=values)
    np.testing.assert_array_equal(found, np.searchsorted(thresholds, np.maximum(values, 0), side="left"))


@pytest.mark.parametrize("name", STATIC)
def test_what_both_sides_must_agree_on_is_integers_alone(name, corpus):
    exact = [file for file in corpus[name].glob("*.onnx") if file.stem not in ("analysis", "synthesis")]
    assert exact or "factorized" in name
    for file in exact:
        assert {kind.kind for kind in types_of(onnx.load(str(file)))} <= {"i", "u", "b"}, file


@pytest.mark.parametrize("name", STATIC)
def test_models_say_what_they_are(name, corpus):
    record = json.loads((corpus[name] / "tables.json").read_text())
    identity = artifact_id((CORPUS / f"{name}.licq").read_bytes()).hex()
    assert record["model"] == identity
    readme = (corpus[name] / "README.md").read_text()
    assert "{" not in readme
    for file in corpus[name].glob("*.onnx"):
        model = onnx.load(str(file))
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import] == [17]
        assert {entry.key: entry.value for entry in model.metadata_props}["licquant.model"] == identity
        assert f"`{file.name}`" in readme
        for value in model.graph.input:
            free = [side.dim_param for side in value.type.tensor_type.shape.dim if side.dim_param]
            assert free == FREE.get(value.name, PLANE)
    assert "Opset 17" in readme


def test_an_export_is_the_same_every_time(tmp_path):
    artifact = Artifact.from_bytes((CORPUS / "elic2022-official.licq").read_bytes())
    assert exported(artifact, IDENTITY) == exported(artifact, IDENTITY)


# --- what is refused, and the folder


def lines_of(capsys: pytest.CaptureFixture, *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, words)))
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize("name", ["dynamic", "dynamic-uneven"])
def test_widths_that_depend_on_the_image_are_refused(name, tmp_path, capsys):
    said = lines_of(capsys, "export", CORPUS / f"{name}.licq", "--onnx", tmp_path / "out")
    assert f"{name}.licq: its widths depend on the image" in said
    assert not list(tmp_path.iterdir())


def test_a_context_that_onnx_has_no_form_for_is_refused():
    artifact = artifact_of("autoregressive")
    context = artifact.program["context_prediction"]
    first, second = context.operations
    weight = np.eye(len(first.grid.zero_point), dtype=np.int32)[:, :, None, None]
    bias, rescaling = np.ones(len(weight), dtype=np.int64), first.rescaling
    pointwise = ops.Convolution("before", (first.name,), first.grid, weight, 8, bias, 1, 0, 1, rescaling)
    last = ops.Convolution(**{**vars(second), "inputs": ("before",)})
    part = type(context)(context.name, context.input_grid, (first, pointwise, last))
    program = type(artifact.program)({**artifact.program.parts, "context_prediction": part})
    odd = Artifact(artifact.family, program, artifact.tables, artifact.plan)
    with pytest.raises(ExportError, match="before: only a change of grid may come before the convolution of a context"):
        exported(odd, IDENTITY)


def test_damaged_models_are_refused(tmp_path, capsys):
    bad = tmp_path / "bad.licq"
    for content in (b"", bytes(5000), EMBEDDED.read_bytes()[:-1], (CORPUS / "format-1.licq").read_bytes()):
        bad.write_bytes(content)
        assert str(bad) in lines_of(capsys, "export", bad, "--onnx", tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["bad.licq"]
    with pytest.raises(ArtifactError, match="cannot be read"):
        export(tmp_path / "none.licq", tmp_path / "out")


def sizes(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def test_folders_that_cannot_take_it(tmp_path, capsys):
    model = CORPUS / "2-bits.licq"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name, says in (
        ("file", "is there already"),
        ("full", "is there already"),
        ("nowhere", "is there already"),
        ("missing/deep", "there is no such folder"),
        ("file/deep", "there is no such folder"),
        ("n" * 300, "cannot be written"),
    ):
        before = sorted(map(str, tmp_path.rglob("*")))
        assert says in lines_of(capsys, "export", model, "--onnx", f"{tmp_path}/{name}")
        assert sorted(map(str, tmp_path.rglob("*"))) == before
    with pytest.raises(ExportError, match="cannot be written"):
        export(model, Path(f"{tmp_path}/a\0b"))
    (tmp_path / "empty").mkdir()
    assert export(model, tmp_path / "empty") == sizes(tmp_path / "empty")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    write, written = Path.write_bytes, []

    def failing(path: Path, content: bytes) -> int:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(ExportError, match="cannot be written: No space left on device"):
        export(CORPUS / "2-bits.licq", tmp_path / "out")
    assert len(written) == 2
    assert not list(tmp_path.iterdir())


def test_without_the_library_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("licquant.onnx_export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = lines_of(capsys, "export", CORPUS / "2-bits.licq", "--onnx", tmp_path / "out")
    assert "needs onnx: install licquant[onnx]" in said


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", str(CORPUS / "2-bits.licq"), "--onnx", str(tmp_path / "out"), "--json"])
    assert not ended.value.code
    record = json.loads(capsys.readouterr().out)
    assert record["files"] == sizes(tmp_path / "out")
    assert record["bytes"] == sum(record["files"].values())
