"""The page that decodes and codes in a browser, on this machine alone: its files, models as ONNX, and sample images.

    /                              the page, as ``make web`` builds it from web/
    /models.json                   [{"identity", "name"}] of every model
    /models/IDENTITY/FILE          a file of what ``licquant export --onnx`` writes, made when it is first wanted
    /samples.json, /samples/NAME   names of sample images, and each as a .lic file

Answers only what is listed here: no path leads to a file. The server listens on 127.0.0.1, and to no other name that
might lead there, so that no page from elsewhere can read it through the browser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from licquant.codec.codec import load
from licquant.codec.files.artifact import Artifact, artifact_id, read_artifact_bytes
from licquant.errors import ArtifactError, LicquantError
from licquant.images import read_image
from licquant.onnx_export.folder import exported

PAGE = Path(__file__).parent / "page"
HOST = "127.0.0.1"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The three about origins isolate the page, without which a browser gives WebAssembly one thread.
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Site:
    """Path → content. What takes time is made once, when it is first wanted."""

    def __init__(self, models: Sequence[Path], pictures: Sequence[Path], codes: Path, page: Path = PAGE) -> None:
        """models: .licq files;  pictures: the samples;  codes: which model codes them;  page: what ``make web`` builds

        Raises ``LicquantError`` if the page is not built, ``ArtifactError`` for a file that is no model.
        """
        if not (page / "index.html").is_file():
            raise LicquantError("the page is not built: run `make web` in licquant's source tree (it needs npm)")
        files = {f"/{path.relative_to(page).as_posix()}": path for path in page.rglob("*") if path.is_file()}
        self._files = {**files, "/": page / "index.html"}
        self._models = {_identity(path): path for path in models}
        self._codes = codes
        self._pictures = {f"{path.stem}.lic": path for path in pictures}
        self._made: dict[str, Any] = {}
        self._lock = Lock()

    def content(self, path: str) -> bytes | None:
        """None where there is nothing; raises ``LicquantError`` for what cannot be made."""
        if path in self._files:
            return self._files[path].read_bytes()
        match path.strip("/").split("/"):
            case ["models.json"]:
                found = [{"identity": identity, "name": path.name} for identity, path in self._models.items()]
                return json.dumps(found).encode()
            case ["samples.json"]:
                return json.dumps(list(self._pictures)).encode()
            case ["models", identity, name] if identity in self._models:
                files: Mapping[str, bytes] = self._once(identity, lambda: _exported(self._models[identity]))
                return files.get(name)
            case ["samples", name] if name in self._pictures:
                return self._once(name, lambda: self._sample(self._pictures[name]))
        return None

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def _sample(self, picture: Path) -> bytes:
        return load(self._codes).encode(read_image(picture))


def _identity(model: Path) -> str:
    data = read_artifact_bytes(model)
    try:
        Artifact.from_bytes(data)
    except ArtifactError as error:
        raise ArtifactError(f"{model}: {error}") from error
    return artifact_id(data).hex()


def _exported(model: Path) -> dict[str, bytes]:
    data = read_artifact_bytes(model)
    return exported(Artifact.from_bytes(data), artifact_id(data).hex())


@dataclass(frozen=True)
class Server:
    """A site that listens; url: where."""

    http: ThreadingHTTPServer
    url: str

    def run(self) -> None:
        """Until it is interrupted."""
        try:
            self.http.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self.http.server_close()


def listen(site: Site, port: int) -> Server:
    """port: 0 for any that is free. Raises ``LicquantError`` for one that cannot be had."""
    try:
        http = ThreadingHTTPServer((HOST, port), _handler(site))
    except OSError as error:
        raise LicquantError(f"port {port}: cannot be listened to: {error.strerror or error}") from error
    return Server(http, f"http://{HOST}:{http.server_address[1]}/")


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version, sys_version = "licquant", ""

        def do_GET(self) -> None:
            self._answer(*self._found())

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing: requests are those of one person at this machine."""

        def _found(self) -> tuple[HTTPStatus, str, bytes]:
            """(status, type, content)"""
            port = self.connection.getsockname()[1]
            if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
                return HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"not a name of this server"
            path = unquote(urlsplit(self.path).path)
            try:
                content = site.content(path)
            except LicquantError as error:
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", str(error).encode()
            if content is None:
                return HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing of this name"
            suffix = ".html" if path == "/" else PurePosixPath(path).suffix
            return HTTPStatus.OK, _TYPES.get(suffix, "application/octet-stream"), content

        def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
            self.send_response(status)
            for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler
