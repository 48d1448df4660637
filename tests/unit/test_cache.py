"""What is kept is found by contents and code, is whole or made again, and can be shown and cleared."""

import json
import os
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from licquant import cache
from licquant.cache import KINDS, READY, Entry, cache_folder, code_version, entry, kept_in, packages_version
from licquant.commands.app import main
from licquant.errors import LicquantError


def test_records_come_back(tmp_path: Path) -> None:
    kept = entry(tmp_path / "new", "hessian", "model", 0.1)
    assert kept.read() == []
    kept.append({"a": 0.1, "b": None})
    kept.append([1, "λ"])
    assert kept.read() == [{"a": 0.1, "b": None}, [1, "λ"]]
    kept.write("only")
    assert kept.read() == ["only"]
    assert kept == entry(tmp_path / "new", "hessian", "model", 0.1)
    others = [entry(tmp_path, "bytes", "model", 0.1), entry(tmp_path, "hessian", "model", 0.1 + 1e-9)]
    assert len({kept.path.name, *(other.path.name for other in others)}) == 3


def test_without_a_folder_nothing_is_kept() -> None:
    nowhere = entry(None, "bytes", 1)
    nowhere.append(1)
    nowhere.write(1)
    assert nowhere.read() == []


@pytest.mark.parametrize("position", range(0, 90, 7))
def test_damage_anywhere_is_said_once_and_left_out(
    tmp_path: Path, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept = entry(tmp_path, "hessian", 1)
    for number in range(3):
        kept.append({"value": number})
    data = bytearray(kept.path.read_bytes())
    data[position] ^= 0x84  # also makes invalid UTF-8 of it
    kept.path.write_bytes(bytes(data))
    found = kept.read()
    assert 1 <= len(found) < 3
    assert all(record in [{"value": number} for number in range(3)] for record in found)
    (line,) = caplog.messages
    assert str(kept.path) in line
    assert "\n" not in line
    assert kept.read() == found
    assert caplog.messages == [line]


def grow(path: Path, name: str) -> None:
    for number in range(200):
        Entry(path).append([name, number])


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    kept = entry(tmp_path, "sensitivity", 1)
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    processes = [context.Process(target=grow, args=(kept.path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = kept.read()
    assert sorted(found) == [[name, number] for name in "ab" for number in range(200)]


def test_a_place_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for use in (lambda e: e.append(1), lambda e: e.write(1)):
        with pytest.raises(LicquantError, match="cannot be made: "):
            use(entry(tmp_path / "file" / "folder", "bytes", 1))


# --- the version of the code --------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which versions are then taken of."""
    package = tmp_path / "licquant"
    shutil.copytree(cache._PACKAGE, package, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    monkeypatch.setattr(cache, "_PACKAGE", package)
    return package


def versions() -> dict[str, str]:
    for function in (code_version, packages_version):
        function.cache_clear()
    found = {kind: cache._version_of(kind) for kind in KINDS}
    for function in (code_version, packages_version):
        function.cache_clear()
    return found


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ("images/picture.py", {"pixels", "sensitivity", "bytes", "hessian"}),
        ("train/pixels.py", {"pixels"}),
        ("quant/layers.py", {"sensitivity", "bytes", "hessian"}),
        ("quant/rd.py", {"sensitivity", "hessian"}),
        ("models/trace.py", {"sensitivity", "bytes", "hessian"}),
        ("codec/files/weights.py", {"bytes", "ready"}),
        ("lower/program.py", {"bytes"}),
        ("program/arithmetic.py", {"sensitivity", "bytes", "hessian", "ready"}),
        ("reports/pictures.py", set()),
        ("commands/app.py", set()),
    ],
)
def test_what_depends_on_changed_code_is_another_version(copied: Path, changed: str, kinds: set[str]) -> None:
    before = versions()
    path = copied / changed
    path.write_bytes(path.read_bytes() + b"\nCHANGED = 1\n")
    after = versions()
    assert {kind for kind in KINDS if after[kind] != before[kind]} == kinds


def test_every_kind_has_code() -> None:
    modules = [name for kind in KINDS for name in KINDS[kind] if kind != READY]
    assert all(map(cache._file_of, modules))
    assert all((cache._PACKAGE / name).is_dir() for name in KINDS[READY])
    assert len(set(versions().values())) == len(KINDS)
    assert versions() == versions()


def test_another_library_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = versions(), cache._version
    monkeypatch.setattr(cache, "_version", lambda name: "0" if name == "PIL" else real(name))
    assert versions()["pixels"] != before["pixels"]


# --- the folder and the command -----------------------------------------------------------------------------


def test_one_definition_of_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LICQUANT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "licquant"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "licquant"
    monkeypatch.setenv("LICQUANT_CACHE", "~/own")
    assert cache_folder() == Path.home() / "own"
    assert cache_folder(Path("~/given")) == Path.home() / "given"


def command(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["cache", *map(str, words), "--json"])
    assert not stop.value.code
    return json.loads(capsys.readouterr().out)


def test_the_command_shows_and_clears(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry(tmp_path, "sensitivity", 1).append(1)
    entry(tmp_path, "hessian", 1).append(1)
    others = ["notes.txt", "hessian.json", "x-0123456789ab-" + 32 * "0" + ".jsonl", ".licquant-" + 16 * "0" + ".tmp"]
    older = ["sensitivity-" + 12 * "0" + "-" + 32 * "0" + ".jsonl", 32 * "a" + ".u8", 32 * "a" + ".json"]
    older += [f"bytes-{32 * '1'}-8-8.json", f"hessian-{32 * '1'}-0.013.json", f"sensitivity-{32 * '1'}.jsonl"]
    unfinished = ".licquant-" + 16 * "1" + ".tmp"
    for name in (*others, *older, unfinished):
        (tmp_path / name).write_text("12345")
    os.utime(tmp_path / unfinished, (0, 0))

    shown = command(capsys, "--cache", tmp_path)
    of = {kind["kind"]: kind for kind in shown["kinds"]}
    assert (shown["folder"], shown["cleared"]) == (str(tmp_path), 0)
    assert {kind: (found["files"], found["older_files"]) for kind, found in of.items()} == {
        "pixels": (2, 2), "sensitivity": (3, 2), "bytes": (1, 1), "hessian": (2, 1), "unfinished": (1, 1),
    }  # fmt: skip
    assert of["pixels"]["bytes"] == of["pixels"]["older_bytes"] == 10
    assert 0 <= of["sensitivity"]["newest_days"] <= of["sensitivity"]["oldest_days"] < 1

    cleared = command(capsys, "--cache", tmp_path, "--clear-older")
    assert (cleared["cleared"], cleared["cleared_bytes"]) == (7, 35)
    assert len(kept_in(tmp_path)) == 2
    assert entry(tmp_path, "hessian", 1).read() == [1]
    assert command(capsys, "--cache", tmp_path, "--clear")["cleared"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    assert command(capsys, "--cache", tmp_path / "none")["kinds"] == []
