"""OpenVINO IR of an artifact's transforms: what OpenVINO reads back gives the pixels and latents of the fast engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

import licquant
from licquant.commands.app import main
from licquant.errors import ArtifactError, ExportError
from licquant.images import pad_to_multiple
from licquant.openvino_export import PARTS, export
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.quant.synthetic import dead_leaves
from tests.conformance.run import FOLDER as CORPUS

ASSETS = Path(licquant.__file__).parent / "assets"
EMBEDDED = next(ASSETS.glob("*0.0130.licq"))
MODELS = [
    *(
        CORPUS / f"{name}.licq"
        for name in ("bmshj2018-factorized", "mbt2018", "elic2022-official", "16-bits", "2-bits")
    ),
    EMBEDDED,
]


class Read:
    """A folder of IR, by OpenVINO and ``parts.json`` alone."""

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "parts.json").read_text())
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}  # as the engine
        core = ov.Core()
        self.models = {
            name: core.compile_model(core.read_model(folder / f"{name}.xml"), "CPU", settings)
            for name in self.about["models"]
        }

    def run(self, name: str, q: np.ndarray) -> np.ndarray:
        """Integers [C, H, W] to integers [C, H, W]."""
        reads, writes = (self.about["models"][name][side] for side in ("input", "output"))
        assert len(q) == reads["channels"]
        x = np.moveaxis(q, 0, -1) if reads["axes"] == "NHWC" else q
        y = self.models[name]([np.ascontiguousarray(x[None], dtype=reads["type"])])[0][0]
        assert y.dtype == writes["type"]
        y = np.moveaxis(y, -1, 0) if writes["axes"] == "NHWC" else y
        return y if writes["type"] == "uint8" else np.floor(y + np.float32(0.5)).astype(np.int64)


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_what_is_read_back_computes_as_the_engine(model: Path, tmp_path: Path) -> None:
    sizes = export(model, tmp_path / "ir")
    assert sizes == {path.name: path.stat().st_size for path in (tmp_path / "ir").iterdir()}
    read, codec = Read(tmp_path / "ir"), licquant.load(model, threads=1)
    program = codec.artifact.program
    assert read.about["model"] == codec.id.hex()
    assert set(read.models) == {name for name, part in PARTS.items() if part in program}
    # Wider layers run in float32, where OpenVINO may add in another order once it has read a model; an 8-bit value
    # beside a boundary may be rounded otherwise, which is some 256ths of what the last layer writes in fixed point.
    within = {"16-bits": 1, EMBEDDED.stem: 4}.get(model.stem, 0)
    rgb = dead_leaves(1, 128, seed=5)[0]
    q: Any = np.moveaxis(pad_to_multiple(rgb, read.about["stride"]), -1, 0)
    for name in ("analysis", "hyper_analysis"):
        if name in read.models:
            wanted = OpenVinoEngine(program[PARTS[name]], 1).run(q)
            assert abs(read.run(name, q) - wanted).max() <= within
            q = wanted
    latents = codec.decode_symbols(codec.encode(rgb))
    pixels = np.moveaxis(read.run("synthesis", latents.y), 0, -1)
    difference = pixels[:128, :128].astype(int) - codec.synthesise(latents.y, 128, 128)
    assert abs(difference).max() <= min(within, 1)


def test_fixed_points_are_told(tmp_path: Path) -> None:
    export(CORPUS / "mbt2018.licq", tmp_path / "ir")
    about = json.loads((tmp_path / "ir" / "parts.json").read_text())["models"]
    assert about["analysis"]["input"] == {"axes": "NHWC", "type": "uint8", "channels": 3, "bits": 8}
    assert about["analysis"]["output"] == about["hyper_analysis"]["input"]
    assert about["analysis"]["output"]["bits"] == 32
    assert about["analysis"]["output"]["fraction_bits"] >= 0


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (1, 1)
    return said


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = CORPUS / "2-bits.licq"
    with pytest.raises(ExportError, match="its widths depend on the image"):
        export(CORPUS / "dynamic.licq", tmp_path / "ir")
    (tmp_path / "bad.licq").write_bytes(model.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"bad\.licq"):
        export(tmp_path / "bad.licq", tmp_path / "ir")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    assert "is there already" in refused(capsys, "export", model, "--openvino", tmp_path / "full")
    for words in ((), ("--onnx", tmp_path / "a", "--openvino", tmp_path / "b")):
        assert "give one of --onnx FOLDER and --openvino FOLDER" in refused(capsys, "export", model, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.licq", "full"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(CORPUS / "2-bits.licq"), "--openvino", str(tmp_path / "ir"), "--json"]
    main_ends_well(words)
    record = json.loads(capsys.readouterr().out)
    assert set(record["files"]) == {path.name for path in (tmp_path / "ir").iterdir()}


def main_ends_well(words: list[str]) -> None:
    try:
        main(words)
    except SystemExit as ended:
        assert not ended.code
