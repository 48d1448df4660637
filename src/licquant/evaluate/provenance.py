"""What a result was made with: commit, machine, versions, threads, time.

Nothing here names a person, a host or a folder: results are published.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("licquant", "numpy", "openvino", "constriction", "torch", "compressai")


def collect(*, threads: int | None = None, **extra: Any) -> dict[str, Any]:
    """A JSON-ready record of now and here; ``extra`` (hashes, settings) is added under its own names."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "threads": threads,
        **extra,
    }


def commit() -> str | None:
    """The commit of licquant's checkout, with ``+dirty`` if tracked files differ; None outside of one."""
    root = Path(__file__).resolve().parents[3]
    # Installed somewhere inside another project's checkout, that project's commit would say nothing.
    if not (root / ".git").exists():
        return None
    revision = _git(root, "rev-parse", "HEAD")
    if revision is None:
        return None
    return f"{revision}+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else revision


def _git(folder: Path, *arguments: str) -> str | None:
    """Git's answer, or None where it has none (not installed, no commit yet)."""
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in bytes, operating system."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None


def versions() -> dict[str, str | None]:
    """Versions of the packages that decide a result; None for one that is not installed."""
    return {name: version(name) for name in PACKAGES}


def version(name: str) -> str | None:
    """Of an installed package; None for one that is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
