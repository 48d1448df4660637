"""What the local server of the decoding page answers, and what it does not. The page itself: ``tests/browser``."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'licquant[onnx]'")

import licquant
from licquant import browser
from licquant.errors import ArtifactError, LicquantError
from licquant.images import write_image
from licquant.onnx_export.folder import export
from tests.conformance.run import FOLDER as CORPUS

MODEL = CORPUS / "mbt2018-mean.licq"
TYPES = {
    "index.html": "text/html; charset=utf-8",
    "a.js": "text/javascript; charset=utf-8",
    "b.wasm": "application/wasm",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that stands in for the built one."""
    folder = tmp_path_factory.mktemp("page")
    for name in TYPES:
        (folder / name).write_text(f"content of {name}")
    (folder.parent / "secret.txt").write_text("not for anybody")
    return folder


@pytest.fixture(scope="module")
def server(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Server]:
    picture = tmp_path_factory.mktemp("pictures") / "ä b.png"
    write_image(picture, np.full((20, 30, 3), 90, np.uint8))
    site = browser.Site([MODEL, CORPUS / "dynamic.licq"], [picture], MODEL, page)
    found = browser.listen(site, 0)
    thread = threading.Thread(target=found.run)
    thread.start()
    yield found
    found.http.shutdown()
    thread.join()


def ask(server: browser.Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("name", TYPES)
def test_the_pages_files(server: browser.Server, name: str) -> None:
    status, headers, content = ask(server, f"/{name}")
    assert (status, content.decode()) == (200, f"content of {name}")
    assert headers["Content-Type"] == TYPES[name]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert ask(server, "/")[2] == b"content of index.html"


def test_a_head_has_no_body(server: browser.Server) -> None:
    status, headers, content = ask(server, "/a.js", "HEAD")
    assert (status, headers["Content-Length"], content) == (200, "15", b"")


def test_models_are_what_export_writes(server: browser.Server, tmp_path: Path) -> None:
    export(MODEL, tmp_path / "out")
    identity = licquant.load(MODEL).id.hex()
    models = json.loads(ask(server, "/models.json")[2])
    assert {"identity": identity, "name": MODEL.name} in models
    for file in filter(Path.is_file, (tmp_path / "out").iterdir()):
        assert ask(server, f"/models/{identity}/{file.name}")[2] == file.read_bytes()


def test_samples_are_files_of_the_model(server: browser.Server) -> None:
    assert json.loads(ask(server, "/samples.json")[2]) == ["ä b.lic"]
    status, _, content = ask(server, "/samples/%C3%A4%20b.lic")
    assert status == 200
    assert licquant.load(MODEL).decode(content).shape == (20, 30, 3)


def test_a_model_without_a_form_in_onnx(server: browser.Server) -> None:
    identity = licquant.load(CORPUS / "dynamic.licq").id.hex()
    status, headers, content = ask(server, f"/models/{identity}/hyper.onnx")
    assert status == 500
    assert headers["Content-Type"].startswith("text/plain")
    assert content.startswith(b"its widths depend on the image")


@pytest.mark.parametrize(
    "path",
    [
        *("/secret.txt", "/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/index.html/", "/models"),
        *(
            "/samples/../index.html",
            "/samples/x.lic",
            "/assets/..",
            "/%00",
            "/models/x/y",
            "/models/072bbd92a43fc414/../../a.js",
        ),
    ],
)
def test_nothing_else_is_answered(server: browser.Server, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "127.0.0.1.example.org:80", "", "[::1]"])
def test_other_names_that_lead_here_are_refused(server: browser.Server, host: str) -> None:
    assert ask(server, "/", Host=host)[0] == 421


def test_other_methods_are_refused(server: browser.Server) -> None:
    assert {ask(server, "/", method)[0] for method in ("POST", "PUT", "DELETE", "OPTIONS")} == {501}


def test_it_listens_on_this_machine_alone(server: browser.Server) -> None:
    assert server.http.server_address[0] == "127.0.0.1"


def test_what_cannot_be_shown(page: Path, tmp_path: Path) -> None:
    with pytest.raises(LicquantError, match="the page is not built: run `make web`"):
        browser.Site([MODEL], [], MODEL, tmp_path)
    (tmp_path / "bad.licq").write_bytes(b"LICQ")
    with pytest.raises(ArtifactError):
        browser.Site([tmp_path / "bad.licq"], [], MODEL, page)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LicquantError, match=f"port {port}: cannot be listened to: "):
            browser.listen(browser.Site([MODEL], [], MODEL, page), port)


STARTED = """
import sys
from pathlib import Path
from licquant import browser
browser.Site.__init__.__defaults__ = (Path(sys.argv.pop(1)),)
from licquant.commands.app import main
main()
"""


def as_in_a_terminal() -> None:
    """A shell has what it starts in the background ignore interrupts, and so whatever that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_command_says_where_and_ends_when_interrupted(page: Path) -> None:
    command = [sys.executable, "-c", STARTED, str(page), "serve", "--models", str(MODEL), "--port", "0", "--json"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    )
    assert started.stdout is not None
    said = json.loads(started.stdout.readline())
    connection = http.client.HTTPConnection(urlsplit(said["url"]).netloc, timeout=60)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"content of index.html"
    started.send_signal(signal.SIGINT)
    _, complaints = started.communicate(timeout=60)
    assert (started.returncode, complaints) == (0, "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "70000"], "70000"),
        (["--models", "nothing.licq"], "nothing.licq"),
    ],
)
def test_the_command_refuses_in_one_line(page: Path, tmp_path: Path, words: list[str], says: str) -> None:
    command = [sys.executable, "-c", STARTED, str(page), "serve", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
