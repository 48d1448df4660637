"""The soak's workers compare what they should, and what differs, fails or grows is complained about."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import soak, soak_worker
from benchmarks.soak_worker import Mailbox, Worker
from licquant.codec import codec as codec_module
from tests.dynamic_programs import UNEVEN, dynamic_artifact


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    dynamic_artifact(widths=UNEVEN).save(tmp_path / "dynamic.licq")
    return [tmp_path / "dynamic.licq"]


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_worker, "LARGEST", 48)
    monkeypatch.setattr(soak_worker, "NARROW", 16)
    monkeypatch.setattr(soak_worker, "_ODDS_OF_OVERSIZED", 0)


def work(models: list[Path], folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What both workers say, one after the other, in this process."""
    folder.mkdir()
    for me in range(2):
        Worker(models, Mailbox(folder, me), me, 1.0, 2.0).run()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_everything_is_compared_and_the_same(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = work(models, tmp_path / "mail", capsys)[-1]
    assert last["failures"] == []
    assert last["rounds"]["dynamic"] > 3
    assert {"decoder", "exact engine", "pixels", "other process", "slow reference"} <= set(last["compared"])
    assert last["rss_bytes"] > 0
    assert last["handles"] > 0


@pytest.mark.slow
def test_a_decoder_that_reads_other_symbols_is_seen(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = codec_module.Codec.decode_symbols

    def wrong(self: codec_module.Codec, data: bytes) -> codec_module.Latents:
        latents = right(self, data)
        return codec_module.Latents(latents.y + (len(data) % 2), latents.z)

    monkeypatch.setattr(codec_module.Codec, "decode_symbols", wrong)
    problems = {failure["problem"] for failure in work(models, tmp_path / "mail", capsys)[-1]["failures"]}
    assert {"decoder differs", "exact engine differs", "other process differs"} <= problems


@pytest.mark.slow
def test_an_error_is_a_finding_and_the_others_go_on(
    models: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = codec_module.Codec.encode

    def sometimes(self: codec_module.Codec, rgb: np.ndarray) -> bytes:
        if rgb.shape[0] % 4 == 1:
            raise MemoryError("none left")
        return right(self, rgb)

    monkeypatch.setattr(codec_module.Codec, "encode", sometimes)
    last = work(models, tmp_path / "mail", capsys)[-1]
    assert "MemoryError: none left" in {failure["problem"] for failure in last["failures"]}
    assert last["rounds"]["dynamic"] > 0


def samples(growth: float = 0.0, handles: int = 0, **last: Any) -> list[soak.Sample]:
    made = [
        {
            **{"seconds": 10.0 * n, "cpu_seconds": n, "rounds": {"m": n}, "compared": {}, "pixels": n, "failures": []},
            **{"torch": False, "rss_bytes": int(1e9 * (1 + growth * n / 40)), "handles": 5 + handles * n, "threads": 9},
        }
        for n in range(40)
    ]
    made[-1] |= last
    return made


@pytest.mark.parametrize(
    ("of", "status", "complaint"),
    [
        (samples(), 0, None),
        (samples(growth=0.5), 0, "rss_bytes grew"),
        (samples(handles=1), 0, "handles grew"),
        (samples(failures=[{"problem": "pixels differs"}]), 0, "pixels differs"),
        (samples(torch=True), 0, "imported torch"),
        (samples(), -11, "ended with status -11"),
    ],
)
def test_what_is_wrong_is_complained_about(of: list[soak.Sample], status: int, complaint: str | None) -> None:
    found = soak.complaints([soak.summary(of)], [status])
    assert len(found) == (complaint is not None)
    assert complaint is None or complaint in found[0]
