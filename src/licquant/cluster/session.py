"""A Ray cluster: one that is there, or one of this machine alone for the time of a run."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from licquant.errors import LicquantError

_OBJECT_STORE = 200_000_000  # bytes; what goes through it are names and numbers
_SECONDS_TO_ANSWER = 5.0


@dataclass(frozen=True)
class Cluster:
    """Where the work is done.

    address: of a cluster, as Ray takes it: ``auto``, ``HOST:PORT``, ``ray://HOST:PORT``; None for what RAY_ADDRESS
             says (a Ray job's cluster), else for this machine alone
    jobs:    how many items at the same time; None: as many as there are cores
    threads: cores that each takes
    """

    address: str | None = None
    jobs: int | None = None
    threads: int = 1


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[ModuleType]:
    """Ray, connected; inside of another such block, as that has it.

    ``LicquantError``, one line, for an address without a cluster or one of another Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        _check_answers(address)
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == "local":
        cores = cluster.jobs * cluster.threads if cluster.jobs else max(_cores(), cluster.threads)
        how |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": _OBJECT_STORE}
        how |= {"_system_config": {"task_oom_retries": 1}}
    # Ray prints the log of what dies, on standard output, which is for results.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            ray.init(address=address, **how)
        except Exception as error:  # Ray has many, and a bare one for a machine too busy to start it
            raise LicquantError(f"{address}: no Ray cluster that can be used: {_first_sentence(error)}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def workers_of(ray: ModuleType, cluster: Cluster) -> int:
    """How many items can be worked on at the same time by what the cluster has now; 0 if no machine has the cores."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    there = sum(int(cores // cluster.threads) for cores in nodes)
    return min(there, cluster.jobs) if cluster.jobs else there


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes before it says that nobody is there, and then ends the process."""
    match = re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise LicquantError(f"{address}: no Ray cluster answers there: {why}") from error


def _first_sentence(error: Exception) -> str:
    return re.split(r"(?<=[.!?])\s|\n", str(error).strip(), maxsplit=1)[0][:300]
