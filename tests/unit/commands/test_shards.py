"""A checkpoint in shards, as ``train --max-file-mib`` writes it, does in every command what the whole one does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from licquant.codec.files.artifact import Artifact, read_artifact_bytes
from licquant.commands.app import main
from licquant.errors import ModelError
from licquant.images import write_image
from licquant.models.shards import checkpoint_files, checkpoint_sha256
from licquant.quant.synthetic import dead_leaves
from licquant.train import card, export
from licquant.train.plan import planned_runs
from tests.models_for_tests import save_small_checkpoint, small_hyperprior

SMALL_RUN = ("--crop", 64, "--batch-size", 1, "--large-crop", 64, "--large-batch-size", 1, "--accelerator", "cpu")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The same model whole, c.pt, and in shards, s.pt, each with its card, and images."""
    save_small_checkpoint(tmp_path)
    hashes = card.file_hashes(export.write_checkpoint(tmp_path / "s.pt", small_hyperprior().state_dict(), 805_000))
    card.write_card(tmp_path / "s.pt", {"lmbda": 0.01, **hashes})
    assert len(hashes["shards"]) > 1
    (tmp_path / "images").mkdir()
    for number, image in enumerate(dead_leaves(2, 128)):
        write_image(tmp_path / "images" / f"{number}.png", np.ascontiguousarray(image))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--json"])
    captured = capsys.readouterr()
    assert not stop.value.code, captured.err
    return json.loads(captured.out)


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def quantize(place: Path, name: str) -> tuple[object, ...]:
    files = ("--checkpoint", place / f"{name}.pt", "--calib", place / "images", "-o", place / f"{name}.licq")
    return ("quantize", *files, "--steps", 0, "--cache", place / "cache", "--budget", "size=0.5", "--method", "fmpq")


@pytest.mark.slow
def test_quantize_and_evaluate(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {name: run(capsys, *quantize(place, name)) for name in "cs"}
    assert made["s"]["plan_hash"] == made["c"]["plan_hash"]
    assert made["s"]["checkpoint_sha256"] == json.loads((place / "s.json").read_text())["sha256"]
    results = {
        name: run(
            capsys, "evaluate", "--images", place / "images", "--models", place / f"{name}.licq",
            "--reference", place / f"{name}.pt", "-o", place / f"{name}-results.json",
        )
        for name in "cs"
    }  # fmt: skip
    losses = {name: found["reference"]["points"][0]["rd_loss"] for name, found in results.items()}
    assert losses["s"] == losses["c"]
    assert results["s"]["provenance"]["checkpoints"] == [checkpoint_sha256(place / "s.pt")]


@pytest.mark.slow
def test_compare_and_profile(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    record = run(
        capsys, "compare", "--checkpoint", place / "s.pt", "--calib", place / "images", "--images", place / "images",
        "--budget", "bits=8", "--methods", "uniform", "--steps", 0, "-o", place / "compared",
    )  # fmt: skip
    assert record["provenance"]["checkpoints"] == [checkpoint_sha256(place / "s.pt")]
    monkeypatch.setattr("licquant.commands.profile.REPEATS", 1)
    words = ("profile", "--checkpoint", place / "s.pt", "--size", "64x64", "--threads", 1, "-o", place / "t.json")
    assert run(capsys, *words)["provenance"]["checkpoint"] == checkpoint_sha256(place / "s.pt")


def test_finetune_and_reproduce(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from licquant.commands import reproduce_tables
    from licquant.commands.reproduce_cells import NEAREST

    files = ("--checkpoint", place / "s.pt", "--calib", place / "images")
    words = ("finetune", *files, "--data", place / "images", "--steps", 1, *SMALL_RUN, "--cache", place / "cache")
    run(capsys, *words, "-o", place / "f.licq")
    said = Artifact.from_bytes(read_artifact_bytes(place / "f.licq")).provenance
    assert said["checkpoint_sha256"] == checkpoint_sha256(place / "s.pt")
    monkeypatch.setattr(reproduce_tables, "TABLES", {"table2": (NEAREST,)})
    words = ("reproduce", "table2", *files, "--data", place / "images", "--images", place / "images", "--seeds", 1)
    record = run(capsys, *words, "--cache", place / "cache", "-o", place / "reproduced")
    assert record["provenance"]["checkpoints"] == [checkpoint_sha256(place / "s.pt")]


def test_training_from_shards_to_shards(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "train",
        "--model",
        "bmshj2018-hyperprior",
        "--lmbda",
        0.02,
        "--steps",
        1,
        "--data",
        place / "images",
    )
    options = (*SMALL_RUN, "--cache", place / "cache", "--init", place / "s.pt", "--max-file-mib", 0.77)
    made = run(capsys, *words, *options, "-o", place / "t.pt")["card"]
    assert made["init_sha256"] == checkpoint_sha256(place / "s.pt")
    assert made["sha256"] == checkpoint_sha256(place / "t.pt")
    assert set(made["shards"]) == {path.name for path in checkpoint_files(place / "t.pt")}
    again = run(capsys, *words, *options, "-o", place / "t.pt", "--resume")
    assert again["status"] == "complete"
    (place / "plan.json").write_text(json.dumps({"runs": [{"model": "mbt2018", "lmbda": 0.02, "init": "s.pt"}]}))
    assert planned_runs(place / "plan.json")[0].init == place / "s.pt"


def test_a_missing_shard_and_a_lone_one_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *others = checkpoint_files(place / "s.pt")
    count = 2 + len(others)
    with pytest.raises(ModelError, match=f"one shard of a checkpoint; give the name of the whole, {'s.pt'}"):
        checkpoint_files(first)
    (place / "s-2.json").write_text((place / "s.json").read_text())
    lone = [first if word == place / "s.pt" else word for word in quantize(place, "s")]
    assert "give the name of the whole, s.pt" in fails(capsys, *lone, "--lmbda", 0.01)
    second.unlink()
    for words in (quantize(place, "s"), ("profile", "--checkpoint", place / "s.pt", "-o", place / "t.json")):
        assert f"only shards 1{', 3' if others else ''}" in fails(capsys, *words)
        assert f"of {count} are there" in fails(capsys, *words)
    assert not (place / "s.licq").exists()


def test_the_hash_of_one_file_is_the_files(place: Path) -> None:
    import hashlib

    assert checkpoint_sha256(place / "c.pt") == hashlib.sha256((place / "c.pt").read_bytes()).hexdigest()
    of_shards = [hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoint_files(place / "s.pt")]
    assert checkpoint_sha256(place / "s.pt") == hashlib.sha256("".join(of_shards).encode()).hexdigest()
    assert torch.load(place / "c.pt", weights_only=True).keys()
