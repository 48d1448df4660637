"""The conformance runner: green on the stored corpus, and it names what is damaged, missing or different."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from licquant.codec.files.artifact import DYNAMIC_VERSION, VERSION, Artifact
from licquant.codec.files.bitstream import FIELD_KINDS, Bitstream
from licquant.codec.latents.families import FAMILIES
from licquant.program.arithmetic import MAX_BITS, MIN_BITS
from licquant.program.fields import OPERATIONS
from tests.conformance import matrix, run
from tests.conformance.pictures import PICTURES

ROOT = Path(__file__).parents[2]
SMALL = "bmshj2018-factorized-relu"  # the smallest entry

# What an emulated root lacks; None: cannot be imported.
BARE = """
import sys
sys.modules |= dict.fromkeys(("openvino", "constriction", "threadpoolctl", "typer", "rich", "torch"))
from tests.conformance.run import main
sys.exit(main(["--engine", "exact"]))
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return only(SMALL, tmp_path)


def only(name: str, folder: Path) -> Path:
    """A copy of the corpus that has one entry."""
    (folder / run.MANIFEST).write_text(json.dumps({name: stored_manifest()[name]}))
    for path in run.FOLDER.glob(f"{name}.*"):
        shutil.copy(path, folder)
    return folder


def stored_manifest() -> dict:
    return json.loads((run.FOLDER / run.MANIFEST).read_text())


def faults(folder: Path) -> list[str]:
    """Of the one entry and its files, not of families that the copy lacks."""
    found = [fault for outcome in run.check_corpus(folder, ["exact"]) for fault in outcome.faults]
    return [fault for fault in found if not fault.startswith("no entry of the family")]


def altered(folder: Path, name: str, *keys: str) -> None:
    """Change the first digit of a hash in the manifest."""
    path = folder / run.MANIFEST
    manifest = json.loads(path.read_text())
    record = manifest[name]
    for key in keys[:-1]:
        record = record[key]
    digit = record[keys[-1]][0]
    record[keys[-1]] = ("0" if digit != "0" else "1") + record[keys[-1]][1:]
    path.write_text(json.dumps(manifest))


def test_the_stored_corpus_is_green() -> None:
    outcomes = run.check_corpus()
    assert [fault for outcome in outcomes for fault in outcome.faults] == []
    assert sum(outcome.pictures for outcome in outcomes) == 3 * sum("pictures" in r for r in stored_manifest().values())


def test_it_needs_numpy_and_pillow_alone() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", BARE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plain Python, exact" in done.stdout


def test_every_family_model_format_and_width_has_an_entry() -> None:
    manifest = stored_manifest()
    assert {record.get("family") for record in manifest.values()} >= set(FAMILIES)
    assert {record["format"] for record in manifest.values()} == set(range(1, DYNAMIC_VERSION + 1))
    read = {VERSION, DYNAMIC_VERSION}
    assert all(("refused" in record) == (record["format"] not in read) for record in manifest.values())
    plans = [
        Artifact.from_bytes((run.FOLDER / f"{name}.licq").read_bytes()).plan
        for name, record in manifest.items()
        if "pictures" in record
    ]
    widths = range(MIN_BITS, MAX_BITS + 1)
    assert {bits.weight for plan in plans for bits in plan.values()} >= set(widths)
    assert {bits.activation for plan in plans for bits in plan.values()} >= set(widths)
    assert {picture for record in manifest.values() for picture in record.get("pictures", {})} == set(PICTURES)
    coded = [Bitstream.from_bytes(path.read_bytes()) for path in run.FOLDER.glob("*.lic")]
    assert {kind for stream in coded for kind in stream.fields} == set(FIELD_KINDS.values())
    assert {not stream.fields for stream in coded} == {True, False}  # both versions


def test_every_operation_is_in_a_program() -> None:
    names = [name for name, record in stored_manifest().items() if "pictures" in record]
    programs = [Artifact.from_bytes((run.FOLDER / f"{name}.licq").read_bytes()).program for name in names]
    assert {type(op) for program in programs for part in program.values() for op in part.operations} == set(OPERATIONS)


def test_what_stands_beside_the_colours_is_checked(tmp_path: Path) -> None:
    folder = only("with-fields", tmp_path)
    assert faults(folder) == []
    altered(folder, "with-fields", "pictures", "pixel", "carried")
    assert faults(folder) == ["with-fields.pixel: engine exact, 1 threads: other things beside the colours"]


@pytest.mark.parametrize("name", ["y", "z", "pixels", "sha256"])
def test_one_digit_of_a_stored_hash_is_enough(corpus: Path, name: str) -> None:
    assert faults(corpus) == []
    altered(corpus, SMALL, "pictures", "scene", name)
    wanted = {"y": "other symbols y", "z": "other symbols z", "pixels": "other pixels", "sha256": "damaged"}
    (fault,) = faults(corpus)
    assert fault.startswith(f"{SMALL}.scene")
    assert wanted[name] in fault


@pytest.mark.parametrize("name", [f"{SMALL}.licq", f"{SMALL}.pixel.lic"])
def test_a_damaged_file_is_named(corpus: Path, name: str) -> None:
    data = bytearray((corpus / name).read_bytes())
    data[len(data) // 2] ^= 1
    (corpus / name).write_bytes(data)
    (fault,) = faults(corpus)
    assert fault.startswith(f"{name}: damaged")


@pytest.mark.parametrize("name", [f"{SMALL}.licq", f"{SMALL}.pixel.lic", run.MANIFEST])
def test_a_missing_file_is_named(corpus: Path, name: str) -> None:
    (corpus / name).unlink()
    assert any(fault.startswith(f"{name}: ") for fault in faults(corpus))


def test_a_missing_entry_is_named(corpus: Path) -> None:
    (corpus / run.MANIFEST).write_text("{}")
    assert f"{SMALL}.licq: in the folder, but its entry is missing" in faults(corpus)
    (whole,) = run.check_corpus(corpus, ["exact"])
    assert [f"no entry of the family {family}" for family in FAMILIES] == whole.faults[-len(FAMILIES) :]


def test_entries_that_say_nonsense_are_faults(corpus: Path) -> None:
    (corpus / run.MANIFEST).write_text(json.dumps({SMALL: {"sha256": 3}}))
    assert faults(corpus)
    (corpus / run.MANIFEST).write_text(json.dumps({SMALL: []}))
    assert faults(corpus)
    (corpus / run.MANIFEST).write_text("[]")
    assert faults(corpus)


def test_pixels_beyond_the_bound_are_a_fault(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    within = stored_manifest()[SMALL]["pictures"]["scene"]["within"]
    decode = run.Codec.decode

    def lighter(codec: run.Codec, data: bytes) -> np.ndarray:
        pixels = decode(codec, data)
        return np.where(pixels < 128, pixels + within + 1, pixels).astype(np.uint8) if codec.fast else pixels

    class Marked(run.Codec):
        def __init__(self, artifact: Artifact, identity: bytes, engine: str, threads: int) -> None:
            super().__init__(artifact, identity, "exact", threads)
            self.fast = engine == "openvino"

        decode = lighter

    monkeypatch.setattr(run, "Codec", Marked)
    found = [fault for outcome in run.check_corpus(corpus) for fault in outcome.faults if "at most" in fault]
    assert any(f"pixels differ by {within + 1}, {within} at most" in fault for fault in found)


def test_the_command_tells_by_its_status_and_in_json(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    report = tmp_path_factory.mktemp("report") / "found.json"
    altered(corpus, SMALL, "pictures", "pixel", "y")
    assert run.main(["--engine", "exact", "--folder", str(corpus), "--json", str(report)]) == 1
    record = json.loads(report.read_text())
    assert any(fault.startswith(f"{SMALL}.pixel") for fault in record["faults"])
    assert record["machine"]["byte order"] == sys.byteorder


def test_rows_are_those_that_the_processor_can_run() -> None:
    can, cannot = matrix.rows({"sse4_1", "avx2"})
    names = {row.name for row in can}
    assert {"as it is", "OpenVINO with SSE41", "OpenVINO with AVX2", "BLAS for Haswell"} <= names
    assert "OpenVINO with AVX512_CORE" not in names
    assert any("AVX512_CORE_VNNI" in line for line in cannot)


@pytest.mark.slow
def test_entries_are_made_once(tmp_path: Path) -> None:
    pytest.importorskip("compressai")
    command = [sys.executable, ROOT / "tools" / "make_conformance.py", SMALL, "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert faults(tmp_path) == []
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"there already: {SMALL}" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made
