"""The conformance corpus under everything that this machine can imitate: ``python -m tests.conformance.matrix``.

Each row is one fresh process of ``tests.conformance.run``: OpenVINO's kernels of lower instruction sets, NumPy's BLAS
of other processors, NumPy without its faster loops, other versions of Python; with 1, 2 and 7 threads each. What the
machine does not have is a row that says so. Ends with 1 if any row has a fault.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("1", "2", "7")
PYTHONS = ("3.11", "3.12", "3.13")
SHOWN = 6  # faults of a row
# oneDNN's levels, lowest first, with the flag of /proc/cpuinfo that they need.
LEVELS = {
    "SSE41": "sse4_1",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_AMX": "amx_int8",
}
# OpenBLAS's kernels, with the same; it takes others than those named where it does not have them.
KERNELS = {"Prescott": "pni", "Nehalem": "sse4_2", "Haswell": "avx2", "Zen": "avx2", "SkylakeX": "avx512bw"}
# What NumPy looks for at run time, from the highest level down.
LOOPS = "AVX512_SPR AVX512_ICL AVX512_CNL AVX512_CLX AVX512_SKX AVX512CD AVX512F FMA3 AVX2 F16C AVX"


@dataclass
class Row:
    """One run: its name, its interpreter, what is set around it, and which engines it asks for; none: all there are."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    engines: Sequence[str] = ()
    python: str = sys.executable


def rows(flags: set[str]) -> tuple[list[Row], list[str]]:
    """(what this machine can run, what it cannot) for these flags of its processor."""
    can, cannot = [Row("as it is")], []
    for level, flag in LEVELS.items():
        if flag in flags:
            can.append(Row(f"OpenVINO with {level}", {"ONEDNN_MAX_CPU_ISA": level}))
        else:
            cannot.append(f"OpenVINO with {level}: not in this processor")
    for kernels, flag in KERNELS.items():
        if flag in flags:
            can.append(Row(f"BLAS for {kernels}", {"OPENBLAS_CORETYPE": kernels}, ["exact"]))
        else:
            cannot.append(f"BLAS for {kernels}: not in this processor")
    can.append(Row("NumPy's plainest loops", {"NPY_DISABLE_CPU_FEATURES": LOOPS}, ["exact"]))
    for version in PYTHONS:
        if version == f"{sys.version_info.major}.{sys.version_info.minor}":
            continue
        found = _interpreter(version)
        if found:
            can.append(Row(f"Python {version}", python=found))
        else:
            cannot.append(f"Python {version}: not on this machine")
    return can, cannot


def run(row: Row, folder: Path) -> dict[str, Any]:
    """What the runner wrote; faults of its own where it wrote nothing."""
    found = folder / f"{row.name.replace(' ', '-')}.json"
    command = [row.python, "-m", "tests.conformance.run", "--threads", *THREADS, "--json", str(found)]
    if row.engines:
        command += ["--engine", *row.engines]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", **row.environment}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if not found.exists():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return {"faults": [f"ended with {done.returncode}: {last}"], "entries": [], "machine": {}}
    record: dict[str, Any] = json.loads(found.read_text())
    return record


def main() -> int:
    """Run every row, print a table; 0 if all came out alike."""
    start, failed = time.perf_counter(), False
    can, cannot = rows(_processor_flags())
    for row in [row for row in can if row.python != sys.executable]:
        try:
            row.python = _with_requirements(row.python, row.name.split()[-1])
        except subprocess.CalledProcessError:
            can.remove(row)
            cannot.append(f"{row.name}: what the codec needs cannot be installed for it")
    heads = ("", "Python", "NumPy", "BLAS", "OpenVINO's kernel", "pictures", "±", "faults", "s")
    layout = "{:32}{:9}{:9}{:12}{:24}{:>9}{:>4}{:>8}{:>7}"
    print(layout.format(*heads))
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        # As many at a time as there are cores: the work is small, most of it on one thread.
        pool = ThreadPoolExecutor(os.cpu_count())
        for row, found in zip(can, pool.map(lambda row: run(row, Path(folder)), can), strict=True):
            facts = found["machine"]
            pictures = sum(entry["pictures"] for entry in found["entries"])
            largest = max((max(entry["largest"].values(), default=0) for entry in found["entries"]), default=0)
            of_machine = [str(facts.get(name, "?")) for name in ("python", "numpy", "blas", "kernels")]
            seconds = str(facts.get("seconds", "?"))
            print(layout.format(row.name, *of_machine, pictures, largest, len(found["faults"]), seconds), flush=True)
            for fault in found["faults"][:SHOWN]:
                print(f"    {fault}")
            if len(found["faults"]) > SHOWN:
                print(f"    … and {len(found['faults']) - SHOWN} more")
            faults += len(found["faults"])
            failed |= bool(found["faults"]) or not pictures
    for line in cannot:
        print(line)
    print(f"{len(can)} runs, {faults} faults, {time.perf_counter() - start:.0f} s; ± largest difference of a pixel")
    return int(failed)


def _processor_flags() -> set[str]:
    """As Linux tells them; none where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def _interpreter(version: str) -> str | None:
    """Where that version of Python is on this machine: on the path, or among those that pyenv keeps."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, kept.glob(f"{version}.*/bin/python")))]
    for python in filter(None, candidates):
        told = subprocess.run([python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True)
        if told.stdout.startswith(version):
            return python
    return None


def _with_requirements(python: str, version: str) -> str:
    """An environment of that interpreter with what the codec needs, made once."""
    folder = ROOT / "build" / f"python{version}"
    if not (folder / ".ready").exists():
        subprocess.run([*_UV, "venv", "--quiet", "--clear", "--python", python, folder], check=True)
        # The newest versions that there are, as another user would get them; built ones, as compiling takes minutes.
        install = [*_UV, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", folder / "bin" / "python"]
        subprocess.run([*install, "-r", ROOT / "pyproject.toml"], check=True)
        (folder / ".ready").touch()
    return str(folder / "bin" / "python")


_UV = (sys.executable, "-m", "uv")


if __name__ == "__main__":
    sys.exit(main())
