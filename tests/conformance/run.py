"""Check this machine against the conformance corpus: the same symbols, the same exact pixels, the fast ones near them.

    python -m tests.conformance.run [--engine exact] [--threads 1 2 7] [--json FILE]

Needs NumPy and Pillow; uses constriction and OpenVINO where they can be imported. Prints a line for each entry and a
summary; ends with 1 and names what is damaged or differs. ``manifest.json`` holds what must come out, by SHA-256: of
each file, of the symbols y and z, of the pixels of the exact engine. The pixels of OpenVINO may differ from those by
``within`` at most. An entry that is ``refused`` is a file of a format that was never released: a clear error is wanted.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from licquant.codec.codec import ENGINES, Codec
from licquant.codec.entropy.ans import AnsCoder
from licquant.codec.files.artifact import Artifact, artifact_id
from licquant.codec.latents.families import FAMILIES
from licquant.errors import ArtifactError, LicquantError
from licquant.images import Extras
from tests.conformance.pictures import PICTURES

FOLDER = Path(__file__).parent / "corpus"
MANIFEST = "manifest.json"


@dataclass
class Outcome:
    """What one entry gave.

    faults:  what is damaged or differs, each with the file's name; none is as it should be
    largest: engine → largest difference of a pixel from the exact engine's
    """

    name: str
    pictures: int = 0
    faults: list[str] = field(default_factory=list)
    largest: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def digest(values: np.ndarray) -> str:
    """SHA-256 of integers and their shape: the same for every dtype and byte order that holds them."""
    shape = ",".join(map(str, values.shape)).encode()
    return hashlib.sha256(shape + b":" + values.astype("<i4").tobytes()).hexdigest()


def digest_of_extras(extras: Extras) -> str:
    """SHA-256 of all that a picture carries beside its colours, unpacked."""
    parts = [extras.profile, extras.exif, extras.xmp, repr(extras.density).encode()]
    parts.append(b"" if extras.alpha is None else digest(extras.alpha).encode())
    return sha256(b"".join(len(part).to_bytes(4, "little") + part for part in parts))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_names(manifest: dict[str, Any]) -> set[str]:
    """Every file that the manifest speaks of."""
    pictures = {f"{name}.{picture}.lic" for name, record in manifest.items() for picture in record.get("pictures", {})}
    return pictures | {f"{name}.licq" for name in manifest}


def check_corpus(
    folder: Path = FOLDER,
    engines: Sequence[str] = ENGINES,
    threads: Sequence[int] = (1,),
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """An outcome for each entry, and one named ``corpus`` for the whole; never raises for what is wrong in a folder."""
    whole, outcomes = Outcome("corpus"), []
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if not isinstance(manifest, dict) or not all(isinstance(record, dict) for record in manifest.values()):
            raise ValueError("not a record for each entry")
    except (OSError, ValueError) as error:
        whole.faults.append(f"{MANIFEST}: cannot be read: {error}")
        return [whole]
    for name, record in manifest.items():
        outcome, start = Outcome(name), time.perf_counter()
        try:
            _check_entry(folder, record, engines, threads, outcome)
        except Exception as error:  # whatever it is, the other entries are looked at too
            outcome.faults.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        outcome.seconds = time.perf_counter() - start
        outcomes.append(outcome)
        report(outcome)
    unlisted = {path.name for path in folder.iterdir()} - file_names(manifest) - {MANIFEST}
    whole.faults += [f"{name}: in the folder, but its entry is missing" for name in sorted(unlisted)]
    families = {record.get("family") for record in manifest.values()}
    whole.faults += [f"no entry of the family {family}" for family in FAMILIES if family not in families]
    return [*outcomes, whole]


def _check_entry(
    folder: Path, record: dict[str, Any], engines: Sequence[str], threads: Sequence[int], outcome: Outcome
) -> None:
    model = f"{outcome.name}.licq"
    data = _read(folder / model, record["sha256"], outcome.faults)
    if data is None:
        return
    if "refused" in record:
        outcome.faults += _refusal(model, data, record["refused"])
        return
    coded = {}
    for picture, wanted in record["pictures"].items():
        content = _read(folder / f"{outcome.name}.{picture}.lic", wanted["sha256"], outcome.faults)
        if content is not None:
            coded[picture] = content
    outcome.pictures = len(coded)
    artifact = Artifact.from_bytes(data)
    exact: dict[str, np.ndarray] = {}
    # The exact engine comes first: its pixels, once they are known to be right, are what the others are held to.
    for engine in ("exact", *(name for name in engines if name != "exact")):
        for count in threads:
            codec = Codec(artifact, artifact_id(data), engine, count)
            for picture, content in coded.items():
                where = f"{outcome.name}.{picture}: engine {engine}, {count} threads"
                pixels = _check_symbols(codec, content, record["pictures"][picture], where, outcome)
                if engine == "exact":
                    _check_exact(codec, content, picture, pixels, record["pictures"][picture], where, outcome)
                    exact.setdefault(picture, pixels)
                within = 0 if engine == "exact" else record["pictures"][picture]["within"]
                largest = int(abs(pixels.astype(int) - exact[picture]).max())
                outcome.largest[engine] = max(largest, outcome.largest.get(engine, 0))
                if largest > within:
                    outcome.faults.append(f"{where}: pixels differ by {largest}, {within} at most were promised")


def _check_symbols(codec: Codec, coded: bytes, wanted: dict[str, Any], where: str, outcome: Outcome) -> np.ndarray:
    """The decoded pixels; a fault if the symbols are others."""
    latents = codec.decode_symbols(coded)
    found = {"y": digest(latents.y), "z": digest(latents.z)}
    outcome.faults += [f"{where}: other symbols {name}" for name in found if found[name] != wanted[name]]
    return codec.decode(coded)


def _check_exact(
    codec: Codec, coded: bytes, picture: str, pixels: np.ndarray, wanted: dict[str, Any], where: str, outcome: Outcome
) -> None:
    """Of the exact engine the pixels are the same too, and so is what it writes.

    What stands beside the colours is compared unpacked: how well deflate packs it differs from library to library.
    """
    if digest(pixels) != wanted["pixels"]:
        outcome.faults.append(f"{where}: other pixels")
    if "carried" in wanted:
        if digest_of_extras(codec.extras(coded)) != wanted["carried"]:
            outcome.faults.append(f"{where}: other things beside the colours")
    elif codec.encode(PICTURES[picture]()) != coded:
        outcome.faults.append(f"{where}: the picture is coded into other bytes")


def _read(path: Path, wanted: str, faults: list[str]) -> bytes | None:
    """The file's content; None, and a fault, unless it is what the manifest says."""
    try:
        data = path.read_bytes()
    except OSError as error:
        faults.append(f"{path.name}: missing: {error.strerror}")
        return None
    if sha256(data) != wanted:
        faults.append(f"{path.name}: damaged: its SHA-256 is {sha256(data)[:16]}… instead of {wanted[:16]}…")
        return None
    return data


def _refusal(model: str, data: bytes, reason: str) -> list[str]:
    try:
        Artifact.from_bytes(data)
    except ArtifactError as error:
        return [] if reason in str(error) else [f"{model}: refused, but not for its version: {error}"]
    except LicquantError as error:
        return [f"{model}: refused with {type(error).__name__}"]
    return [f"{model}: read, though its format was never released"]


def machine(engines: Sequence[str], threads: Sequence[int]) -> dict[str, Any]:
    """What the outcomes depend on, if they depend on anything."""
    return {
        "architecture": platform.machine(),
        "byte order": sys.byteorder,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "coder": "plain Python" if AnsCoder.__module__.startswith("licquant") else "constriction",
        "kernels": _kernels() if "openvino" in engines else "none",
        "engines": list(engines),
        "threads": list(threads),
    }


def _blas() -> str:
    """The kernels of NumPy's BLAS, as far as they can be told."""
    try:
        import threadpoolctl
    except ImportError:
        return "not known"
    found = [
        library.get("architecture") for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"
    ]
    return str(found[0]) if found and found[0] else "not known"


def _kernels() -> str:
    """The kernel that OpenVINO takes for a convolution of 8 bits here, as it names it."""
    from licquant.program.openvino_engine import OpenVinoEngine

    part = Artifact.from_bytes((FOLDER / "bmshj2018-hyperprior.licq").read_bytes()).program["g_a"]
    kernels = sorted(set(OpenVinoEngine(part, 1).execution_types().values()))
    return next((name for name in kernels if "conv" in name), kernels[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if all is as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", nargs="+", choices=ENGINES, help="all that can be imported, unless named")
    parser.add_argument("--threads", nargs="+", type=int, default=[1], help="how many, one run each")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="another corpus")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    options = parser.parse_args(arguments)
    engines = options.engine or [e for e in ENGINES if e == "exact" or importlib.util.find_spec(e)]

    start = time.perf_counter()
    outcomes = check_corpus(options.folder, engines, options.threads, _print)
    facts = machine(engines, options.threads) | {"seconds": round(time.perf_counter() - start, 1)}
    _print(outcomes[-1])
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    pictures = sum(outcome.pictures for outcome in outcomes)
    print(
        f"{len(outcomes) - 1} entries, {pictures} pictures, {len(faults)} faults: {facts['architecture']} "
        f"({facts['byte order']}-endian), Python {facts['python']}, NumPy {facts['numpy']}, {facts['coder']}, "
        f"{' and '.join(engines)}, {facts['seconds']} s"
    )
    if options.json:
        record = {"machine": facts, "faults": faults, "entries": [asdict(outcome) for outcome in outcomes[:-1]]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if faults else 0


def _print(outcome: Outcome) -> None:
    if outcome.name == "corpus" and not outcome.faults:
        return
    largest = ", ".join(f"{engine} ±{value}" for engine, value in outcome.largest.items() if engine != "exact")
    print(f"{'DAMAGED' if outcome.faults else 'ok':8}{outcome.name:32}{outcome.pictures} pictures  {largest}")
    for fault in outcome.faults:
        print(f"        {fault}")


if __name__ == "__main__":
    sys.exit(main())
