"""encode and decode of several files, folders, patterns and streams: what is written, said, and left as it was."""

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.table import Table

from licquant.codec.codec import Codec
from licquant.commands.app import main
from licquant.commands.file_lists import Job, plan
from licquant.errors import DataError, ImageError, LicquantError
from licquant.images import read_image, write_image
from licquant.quant.synthetic import dead_leaves
from licquant.terminal import printable, show_table

SOURCE = Path(__file__).parents[3] / "src" / "licquant"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.png, b.ppm, sub/a.png and sub/deeper/c [x].PNG, all different; and what is no image."""
    folder = tmp_path / "photos"
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for seed, name in enumerate(("a.png", "b.ppm", "sub/a.png", "sub/deeper/c [x].PNG", ".hidden/d.png")):
        write_image(folder / name, dead_leaves(1, 64 + 8 * seed, seed=seed)[0])
    (folder / "notes.txt").write_text("none")
    return folder


NAMES = ("a", "b", "sub/a", "sub/deeper/c [x]")


def run(*words: object) -> int:
    """The exit status in this process."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, words)))
    return int(stop.value.code or 0)


def alone(codec: Codec, path: Path) -> bytes:
    return codec.encode(read_image(path))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_folder_there_and_back(tmp_path, photos, artifact_path, codec, capsys, jobs) -> None:
    coded, back = tmp_path / "coded", tmp_path / "back"
    assert run("encode", photos, "-o", coded, "-m", artifact_path, "--jobs", jobs) == 0
    assert files_in(coded) == sorted(f"{name}.lic" for name in NAMES)
    assert (coded / "a.lic").read_bytes() == alone(codec, photos / "a.png")
    assert (coded / "sub/deeper/c [x].lic").read_bytes() == alone(codec, photos / "sub/deeper/c [x].PNG")
    said = capsys.readouterr()
    assert f"{coded}/sub/deeper/c [x].lic: 88×88, " in said.out
    assert f"4 of 4 files written to {coded}" in said.err
    assert run("decode", coded, "-o", back, "-m", artifact_path, "--jobs", jobs, "--format", "ppm") == 0
    assert files_in(back) == sorted(f"{name}.ppm" for name in NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(
            read_image(back / f"{name}.ppm"), codec.decode((coded / f"{name}.lic").read_bytes())
        )


def test_one_bad_file_spoils_no_other(tmp_path, photos, artifact_path, capsys) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much")
    out = tmp_path / "out"
    assert run("encode", photos, tmp_path / "missing.png", "-o", out, "-m", artifact_path) == 1
    assert files_in(out) == sorted(f"{name}.lic" for name in NAMES)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("licquant: ")]
    assert len(lines) == 2
    assert any("broken.jpg: " in line for line in lines)
    assert any("missing.png: there is no such file" in line for line in lines)
    assert f"4 of 6 files written to {out}, 2 failed" in said
    (out / "a.lic").write_bytes(b"LICI")
    assert run("decode", out, "-o", tmp_path / "back", "-m", artifact_path, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["written"], record["failed"], record["skipped"]) == (3, 1, 0)
    assert [Path(file["input"]).name for file in record["files"] if "error" in file] == ["a.lic"]
    assert files_in(tmp_path / "back") == sorted(f"{name}.png" for name in NAMES if name != "a")


def test_what_is_there_is_skipped(tmp_path, photos, artifact_path, codec, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.lic").write_bytes(b"mine")
    assert run("encode", photos, "-o", out, "-m", artifact_path, "--skip-existing", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["written"], record["skipped"]) == (3, 1)
    assert (out / "a.lic").read_bytes() == b"mine"
    assert run("encode", photos / "a.png", "-o", out / "a.lic", "-m", artifact_path, "--skip-existing") == 0
    assert (out / "a.lic").read_bytes() == b"mine"
    assert run("encode", photos / "a.png", "-o", out, "-m", artifact_path) == 0
    assert (out / "a.lic").read_bytes() == alone(codec, photos / "a.png")


def test_one_model_is_loaded_once(tmp_path, photos, artifact_path, monkeypatch) -> None:
    from licquant.commands import model_choice

    loads, load = [], model_choice.load
    monkeypatch.setattr(model_choice, "load", lambda path, **more: loads.append(path) or load(path, **more))
    assert run("encode", photos, "-o", tmp_path / "out", "-m", artifact_path, "-j", 4) == 0
    assert loads == [artifact_path]
    assert run("decode", tmp_path / "out", "-o", tmp_path / "back", "-m", artifact_path.parent, "-j", 4) == 0
    assert loads == [artifact_path] * 2


class TestPlans:
    def test_patterns_keep_the_place_below_their_fixed_part(self, photos) -> None:
        assert plan([photos / "**" / "*.png"], "out", (".png",), ".lic") == [
            Job(photos / "a.png", Path("out/a.lic")),
            Job(photos / "sub/a.png", Path("out/sub/a.lic")),
        ]
        assert plan([photos / "s*" / "a.png"], "out", (".png",), ".lic") == [
            Job(photos / "sub/a.png", Path("out/sub/a.lic"))
        ]

    def test_a_name_with_brackets_is_a_file(self, photos) -> None:
        source = photos / "sub/deeper/c [x].PNG"
        assert plan([source], "x.lic", (".png",), ".lic") == [Job(source, Path("x.lic"))]
        assert plan([source], "out/", (".png",), ".lic") == [Job(source, Path("out/c [x].lic"))]

    def test_names_that_differ_in_their_suffix_keep_it(self, tmp_path) -> None:
        for name in ("a.png", "a.jpg", "v1.2"):
            (tmp_path / name).touch()
        jobs = plan([tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "v1.2"], "out", (".png", ".jpg"), ".lic")
        assert [str(job.target) for job in jobs] == ["out/a.png.lic", "out/a.jpg.lic", "out/v1.2.lic"]

    def test_files_of_one_name_keep_their_folders(self, photos) -> None:
        jobs = plan([photos / "a.png", photos / "sub/a.png"], "out", (".png",), ".lic")
        assert [str(job.target) for job in jobs] == ["out/a.lic", "out/sub/a.lic"]

    def test_several_folders_keep_their_names(self, photos) -> None:
        shutil.copytree(photos / "sub", photos.parent / "more" / "sub")
        jobs = plan([photos / "sub", photos.parent / "more" / "sub"], "out", (".png",), ".lic")
        assert [str(job.target) for job in jobs] == [
            "out/photos/sub/a.lic", "out/photos/sub/deeper/c [x].lic",
            "out/more/sub/a.lic", "out/more/sub/deeper/c [x].lic",
        ]  # fmt: skip

    def test_nothing_is_meant_twice(self, photos) -> None:
        assert len(plan([photos, photos, photos / "a.png"], "out", (".png",), ".lic")) == 3

    def test_what_cannot_be_meant(self, photos, tmp_path) -> None:
        with pytest.raises(DataError, match="matches no file"):
            plan([photos / "*.gif"], "out", (".png",), ".lic")
        with pytest.raises(DataError, match=r"holds none of \.gif"):
            plan([photos], "out", (".gif",), ".lic")
        with pytest.raises(LicquantError, match="must be a folder"):
            plan([photos], str(photos / "a.png"), (".png",), ".lic")
        for inputs, output in (([Path("-"), photos / "a.png"], "x"), ([photos], "-"), ([Path("-")], str(photos))):
            with pytest.raises(LicquantError):
                plan(inputs, output, (".png",), ".lic")


def streams(monkeypatch, data: bytes) -> io.BytesIO:
    """Standard input with these bytes; what is written to standard output."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(data))))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", write_through=True))
    return written


def test_streams(tmp_path, photos, artifact_path, codec, monkeypatch) -> None:
    model = ("-m", artifact_path)
    coded = streams(monkeypatch, (photos / "a.png").read_bytes())
    assert run("encode", "-", "-o", "-", *model) == 0
    assert coded.getvalue() == alone(codec, photos / "a.png")
    for output, start in (("png:-", b"\x89PNG"), ("ppm:-", b"P6"), ("-", b"\x89PNG"), ("BMP:-", b"BM")):
        image = streams(monkeypatch, coded.getvalue())
        assert run("decode", "-", "-o", output, *model) == 0
        (tmp_path / "image").write_bytes(image.getvalue())
        assert image.getvalue().startswith(start)
        np.testing.assert_array_equal(read_image(tmp_path / "image"), codec.decode(coded.getvalue()))


def test_a_named_pipe_is_read_as_a_stream(tmp_path, photos, artifact_path, codec) -> None:
    for name, data in (("image", (photos / "a.png").read_bytes()), ("coded", alone(codec, photos / "a.png"))):
        pipe = tmp_path / name
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        command, output = ("encode", "x.lic") if name == "image" else ("decode", "x.png")
        assert run(command, pipe, "-o", tmp_path / output, "-m", artifact_path) == 0
        writer.join()
    assert (tmp_path / "x.lic").read_bytes() == alone(codec, photos / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), codec.decode((tmp_path / "x.lic").read_bytes()))


def test_one_thing_only_goes_to_standard_output(photos, artifact_path, capsys, monkeypatch) -> None:
    written = streams(monkeypatch, b"")
    assert run("encode", photos / "a.png", "-o", "-", "-m", artifact_path, "--json") == 1
    assert written.getvalue() == b""
    assert "--json writes to standard output" in capsys.readouterr().err


def test_a_bad_stream_is_one_line(artifact_path, capsys, monkeypatch) -> None:
    written = streams(monkeypatch, b"no image")
    assert run("encode", "-", "-o", "-", "-m", artifact_path) == 1
    assert written.getvalue() == b""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("licquant: standard input: ")


def test_a_pipe_of_two_commands(tmp_path, photos, artifact_path, codec) -> None:
    """Real processes: nothing but the data reaches standard output, and standard error is empty."""
    command = [sys.executable, "-m", "licquant"]
    encoding = [*command, "encode", str(photos / "a.png"), "-o", "-", "-m", str(artifact_path)]
    coded = subprocess.run(encoding, capture_output=True)
    assert (coded.returncode, coded.stderr) == (0, b"")
    decoding = [*command, "decode", "-", "-o", "ppm:-", "-m", str(artifact_path)]
    image = subprocess.run(decoding, input=coded.stdout, capture_output=True)
    assert (image.returncode, image.stderr) == (0, b"")
    (tmp_path / "image.ppm").write_bytes(image.stdout)
    np.testing.assert_array_equal(read_image(tmp_path / "image.ppm"), codec.decode(coded.stdout))


# --- names --------------------------------------------------------------------------------------------------

ODD = (
    "photo [final].lic",
    "a[/b].lic",
    "[red]x.lic",
    "%41:smile:.lic",
    "x" * 200 + ".lic",
    os.fsdecode(b"caf\xe9.lic"),
)


@pytest.mark.parametrize("name", ODD)
def test_names_are_printed_as_they_are(tmp_path, photos, artifact_path, capsys, name) -> None:
    output = tmp_path / name
    output.parent.mkdir(exist_ok=True)
    words = ["encode", str(photos / "a.png"), "-o", str(output), "-m", str(artifact_path)]
    done = subprocess.run([sys.executable, "-m", "licquant", *words], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    told = str(output).encode("utf-8", "backslashreplace").decode()
    (line,) = done.stdout.decode().splitlines()  # not wrapped
    assert line.startswith(f"{told}: 64×64, ")
    assert output.is_file()
    assert run("decode", f"{output}x", "-o", tmp_path / "x.png", "-m", artifact_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"licquant: {told}x: ")


def test_nothing_in_a_name_is_obeyed() -> None:
    assert printable("a\u202eb\u2066c\u2028d") == "a\\u202eb\\u2066c\\u2028d"
    assert printable("a\x1b[31mb\x9bc\rd\ne") == "a\\x1b[31mb\\x9bc\\x0dd\ne"


def test_a_line_of_a_list_is_one_files(tmp_path, photos, artifact_path, capsys) -> None:
    shutil.copy(photos / "a.png", photos / "x\n12 of 12 files written.png")
    assert run("encode", photos, "-o", f"{tmp_path}/out/", "-m", artifact_path) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_errors_name_the_file(tmp_path, photos, artifact_path, capsys, monkeypatch) -> None:
    """Those that the codec raises too, which knows no names: of one file, of a stream."""
    assert run("decode", photos / "a.png", "-o", tmp_path / "x.png", "-m", artifact_path) == 1
    assert capsys.readouterr().err.startswith(f"licquant: {photos}/a.png: not a .lic file")
    streams(monkeypatch, b"no image")
    assert run("decode", "-", "-o", tmp_path / "x.png", "-m", artifact_path) == 1
    assert capsys.readouterr().err.startswith("licquant: standard input: not a .lic file")
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(ImageError, match=r"dir\.png: a folder, not an image file$"):
        read_image(tmp_path / "dir.png")


def test_consoles_are_made_in_one_place_only() -> None:
    """Where Rich would read markup in names: ``Console(...)`` and ``print`` of ``rich`` are for ``terminal.py``."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "id", getattr(called, "attr", ""))
            column = name == "TextColumn" and not any(keyword.arg == "markup" for keyword in node.keywords)
            if (name == "Console" or column) and path.name != "terminal.py":
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_tables_show_names_as_they_are(capsys) -> None:
    table = Table(title="[b]title")
    table.add_column("[/x]")
    table.add_row("[red]" + "long " * 40 + ":smile:")
    show_table(table)
    said = capsys.readouterr().out
    assert "[b]title" in said
    assert "[/x]" in said
    assert "[red]" + "long " * 40 + ":smile:" in said
