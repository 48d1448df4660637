"""Tables of ``licquant reproduce``: their cells are made once, their figures are means over seeds."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

from licquant.cluster.session import Cluster
from licquant.commands import finetune as finetune_command
from licquant.commands import reproduce as reproduce_command
from licquant.commands import reproduce_tables
from licquant.commands.base import Report
from licquant.commands.reproduce_tables import DPA, DPA_DQ, TABLES, ReproduceOptions, Row
from licquant.errors import LicquantError, ModelError, TrainingError
from licquant.images import read_image
from licquant.quant.in_training import quantizers
from licquant.quant.in_training.finetune_settings import ESTIMATORS
from licquant.train.progress import INTERRUPTED
from tests.models_for_tests import save_small_checkpoint
from tests.unit.train.small import write_images

ROWS = (
    Row("FPQ", None, "ste"),
    Row("DPA", "dpa", "dgm"),
    Row("DQ", "dpa", "dgm", (4, 6)),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("reproduce")
    save_small_checkpoint(place, "a", 0.01)
    save_small_checkpoint(place, "b", 0.02)
    write_images(place / "images", count=2)
    return place


def options(place: Path, output: Path, **changes: object) -> ReproduceOptions:
    given: dict[str, object] = {
        "checkpoints": [place / "b.pt", place / "a.pt"],
        **dict.fromkeys(("calib", "train", "images"), place / "images"),
        "cache": place / "cache",
        "seeds": 2,
        "steps": 1,
        "threads": 1,
    }
    output.mkdir(exist_ok=True)
    return ReproduceOptions(output, **{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A small table, made in one go."""
    output = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce_tables, "TABLES", {"table2": ROWS})
        patch.setattr(reproduce_tables, "SMALL", {**reproduce_tables.SMALL, "batch": 1, "crop": 64})
        return output, reproduce_tables.table("table2", options(place, output))


@pytest.mark.slow
def test_a_table_has_means_and_spreads_of_its_seeds(made: tuple[Path, Report], capsys) -> None:
    output, report = made
    record = json.loads((output / "table2.json").read_text())
    assert record["settings"]["seeds"] == 2
    assert record["settings"]["steps"] == 1
    assert [point["lmbda"] for point in record["reference"]] == [0.01, 0.02]
    assert [row["name"] for row in record["rows"]] == ["FPQ", "DPA", "DQ"]
    for row, seeds in zip(record["rows"], (1, 2, 2), strict=True):
        for point, fp32 in zip(row["points"], record["reference"], strict=True):
            losses = point["values"]["rd_loss"]
            assert len(losses) == seeds
            assert point["mean"]["rd_loss"] == pytest.approx(fmean(losses))
            spread = point["spread"]["rd_loss"]
            assert spread == (pytest.approx(stdev(losses)) if seeds > 1 else None)
            assert point["mean"]["rd_loss_change_percent"] == pytest.approx(
                fmean(100 * (loss / fp32["rd_loss"] - 1) for loss in losses)
            )
    fpq, dpa, dynamic = (row["points"][0] for row in record["rows"])
    assert dpa["values"]["rd_loss"][0] != dpa["values"]["rd_loss"][1]  # another seed, another result
    assert (fpq["mean"]["bits"], dpa["mean"]["bits"]) == (8, 8)
    assert dynamic["mean"]["bits"] < 8
    assert (dpa["mean"]["share_different"], dynamic["mean"]["share_different"]) == (None, pytest.approx(0, abs=1))
    assert record["rows"][0]["bd_rate_percent"]["mean"]["pchip"] is None  # two points are no curve
    assert min(read_image(output / "table2.png").shape[:2]) > 200
    report.show()
    assert "FPQ" in capsys.readouterr().out


@pytest.mark.slow
def test_its_cells_are_artifacts_that_are_made_once(
    made: tuple[Path, Report], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, _ = made
    names = sorted(path.name for path in output.glob("*.licq"))
    seeded = [f"{c}-dpa-dgm-{w}-seed{s}.licq" for c in "ab" for w in ("4.6", "8") for s in (0, 1)]
    assert names == sorted([*seeded, "a-fpq-8-seed0.licq", "b-fpq-8-seed0.licq"])
    before = {name: (output / name).stat().st_mtime_ns for name in names}
    monkeypatch.setattr(reproduce_tables, "SMALL", {**reproduce_tables.SMALL, "batch": 1, "crop": 64})
    monkeypatch.setattr(reproduce_tables, "quantize", None)  # would fail
    monkeypatch.setattr("licquant.train.card.load_model", None)
    reproduce_tables.make_cells(ROWS, options(place, output))
    assert {name: (output / name).stat().st_mtime_ns for name in names} == before
    with pytest.raises(TrainingError, match="started with steps = 1, not 2"):
        reproduce_tables.make_cells(ROWS[1:], options(place, output, steps=2))


def test_an_interrupted_table_says_so(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_command, "run", lambda *_: Report({"status": INTERRUPTED}))
    for name in ("table3", "fig6"):
        report = reproduce_command.run(name, options(place, tmp_path / name))
        assert report.record == {"table": name, "status": INTERRUPTED}


def test_what_is_wrong_is_found_before_any_work(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune_command, "run", None)  # would fail

    def run(**changes: object) -> None:
        reproduce_command.run("table4", options(place, tmp_path, **changes))

    with pytest.raises(LicquantError, match="needs --calib, --images"):
        run(calib=None, images=None)
    with pytest.raises(ModelError, match="same λ"):
        run(checkpoints=[place / "a.pt", place / "a.pt"])
    with pytest.raises(ModelError, match="no model card"):
        run(checkpoints=[place / "c.pt"])
    with pytest.raises(LicquantError, match="not a folder"):
        run(images=place / "missing")
    with pytest.raises(LicquantError, match="seeds = 0"):
        run(seeds=0)
    with pytest.raises(LicquantError, match="unknown result 'table9'"):
        reproduce_command.run("table9", options(place, tmp_path))


def test_the_tables_can_be_trained_and_share_their_cells() -> None:
    rows = [row for table in TABLES.values() for row in table]
    assert all(row.quantizer in {*quantizers.QUANTIZERS, None} for row in rows)
    assert all(row.estimator in ESTIMATORS for row in rows)
    for rows in TABLES.values():
        assert len({row.key for row in rows}) == len(rows)
    assert all(DPA_DQ in table for table in TABLES.values())
    assert [row.key for row in TABLES["table4"]][-1] == DPA.key


@pytest.mark.slow
def test_from_what_a_cluster_is_sent_the_same_is_made(place: Path, sent: list[int], tmp_path: Path) -> None:
    """As in ``test_compare``: a rounded model, a trained one, and one whose widths depend on the image."""
    made = {}
    for name, on in (("plain", None), ("away", Cluster())):
        given = options(place, tmp_path / name, seeds=1, cluster=on, checkpoints=[place / "a.pt"])
        cells = reproduce_tables.make_cells(ROWS, given)
        made[name] = [path.read_bytes() for paths in cells.values() for path in paths]
    assert made["away"] == made["plain"]
    assert (len(made["away"]), sent) == (3, [3])
