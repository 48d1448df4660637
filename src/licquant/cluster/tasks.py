"""Measurements on many machines: each a Ray task, by what a process starts once; what comes back are a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from licquant.cache import code_version
from licquant.cluster.session import Cluster, connected
from licquant.errors import LicquantError

_TRIES = 4
_started: dict[str, Callable[[Any], Any]] = {}

K = TypeVar("K")
R = TypeVar("R")


def each(
    cluster: Cluster, measure: Callable[[K], R], name: str, wanted: Sequence[K], code: Sequence[str]
) -> Iterator[tuple[K, R]]:
    """Every one that is wanted with what ``measure`` says of it, in the order in which they are done.

    measure: sent to each machine once;  name: a hash of all that it holds;  code: modules that it is made of

    ``LicquantError`` for no cluster, a machine with another version, a process that dies again and again.
    """
    with connected(cluster) as ray:
        given, version = ray.put(measure), code_version(tuple(code))
        remote = ray.remote(num_cpus=cluster.threads, max_retries=_TRIES - 1)(_task)
        waiting = {remote.remote([given], name, one, tuple(code), version, cluster.threads): one for one in wanted}
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            one = waiting.pop(ready)
            try:
                found = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, LicquantError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:
                raise LicquantError(f"{one}: the process that measured it died {_TRIES} times: {error}") from error
            yield one, found


def _task(given: list[Any], name: str, one: K, code: tuple[str, ...], version: str, threads: int) -> Any:
    """What Ray runs: the first of a name in a process stays there, with all that it has computed."""
    import ray
    import torch

    if name not in _started:
        if code_version(code) != version:
            node = ray.util.get_node_ip_address()
            raise LicquantError(f"{node} has other code than the machine that gives the work: install the same there")
        torch.set_num_threads(threads)
        _started.clear()
        _started[name] = ray.get(given[0])  # in a list, it is not fetched for every task
    return _started[name](one)
