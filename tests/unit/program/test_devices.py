"""Other devices than the CPU: named, tested before they are used, and only for what need not be exact."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import licquant
from licquant.codec.codec import Codec
from licquant.commands.app import main
from licquant.errors import EngineError
from licquant.images import write_image
from licquant.program import openvino_engine, self_test
from licquant.program.exact import ExactEngine


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A GPU that is the CPU in truth; what is compiled for it is told."""
    compiled: list[str] = []
    compile_model = openvino_engine.compile_model

    def for_cpu(model, threads, callers=1, device="CPU"):
        compiled.append(device)
        return compile_model(model, threads, callers)

    monkeypatch.setattr(openvino_engine, "devices", lambda: ["CPU", "GPU.0", "GPU.1"])
    monkeypatch.setattr(openvino_engine, "compile_model", for_cpu)
    tested = openvino_engine._machine
    tested.cache_clear()
    yield compiled
    tested.cache_clear()


def wrong(parts, inputs):
    return [ExactEngine(part).run(q) + 1 for part, q in zip(parts, inputs, strict=True)]


@pytest.mark.parametrize("device", ["GPU", "NPU", "GPU.1", "cpu", "", "AUTO:GPU", "x" * 99])
def test_a_device_that_is_not_here(device: str, artifact_path: Path) -> None:
    with pytest.raises(EngineError, match=f"device {device[:40]}: OpenVINO has no such device here, it has CPU"):
        licquant.load(artifact_path, device=device)


def test_the_command_says_so_in_one_line(
    artifact_path: Path, image: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "a.png", image)
    with pytest.raises(SystemExit) as stop:
        main(["encode", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.lic"), "--device", "NPU"])
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert error.startswith("licquant: device NPU: OpenVINO has no such device here")
    assert error.count("\n") == 1
    assert not (tmp_path / "a.lic").exists()


def test_auto_is_the_cpu_where_there_is_nothing_else(codec: Codec, image: np.ndarray, artifact_path: Path) -> None:
    assert openvino_engine.usable_device("AUTO") in ("GPU", "NPU", "CPU")
    found = licquant.load(artifact_path, device="AUTO", threads=1)
    data = codec.encode(image)
    assert np.array_equal(found.decode_symbols(data).y, codec.decode_symbols(data).y)


def test_only_what_need_not_be_exact_runs_there(
    imitated: list[str], artifact_path: Path, image: np.ndarray, codec: Codec
) -> None:
    expected = codec.encode(image), codec.decode(codec.encode(image))
    licquant.load(artifact_path, device="GPU").decode(licquant.load(artifact_path, device="GPU").encode(image))
    imitated.clear()  # every test that the machine needs has been made
    found = licquant.load(artifact_path, device="GPU")
    tests = len(imitated)
    data = found.encode(image)
    assert len(imitated) == tests + 2  # g_a and h_a
    found.decode_symbols(data)
    assert len(imitated) == tests + 2  # h_s and the tables: exact integers
    assert np.array_equal(found.decode(data), expected[1])
    assert len(imitated) == tests + 3  # g_s
    assert data == expected[0]
    assert set(imitated) == {"GPU"}


def test_a_device_is_tested_by_its_own_kernels(imitated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = self_test.Machine(partial(openvino_engine._run_together, "CPU"))
    machines = {"GPU": self_test.Machine(wrong), "CPU": right}
    monkeypatch.setattr(openvino_engine, "_machine", machines.__getitem__)
    with pytest.raises(EngineError, match=r"device GPU fails the self-test: .*wrong sums"):
        openvino_engine.usable_device("GPU")
    assert openvino_engine.usable_device("AUTO") == "CPU"
    machines["GPU"] = right
    assert openvino_engine.usable_device("AUTO") == "GPU"


def test_a_device_that_cannot_run_the_layers(imitated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(parts, inputs):
        raise RuntimeError("[GPU] not supported\nat src/plugins")

    monkeypatch.setattr(openvino_engine, "_machine", lambda device: self_test.Machine(refuses))
    with pytest.raises(EngineError, match="device GPU: OpenVINO cannot run the self-test on it"):
        openvino_engine.usable_device("GPU")


def test_the_exact_engine_has_no_device(artifact_path: Path) -> None:
    with pytest.raises(EngineError, match="the engine exact runs on the CPU alone"):
        licquant.load(artifact_path, engine="exact", device="GPU")
