"""What stands for a cluster where none is needed: what is sent is written and read again, as Ray does it."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from licquant.commands import prepared as prepared_module
from licquant.commands import quantize as quantize_module


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs were given each time; they are done in this process, from copies whose arrays are read-only."""
    cloudpickle = pytest.importorskip("ray.cloudpickle", reason="install licquant[cluster]")
    counts: list[int] = []

    def copied(value: Any) -> Any:
        buffers: list[Any] = []
        data = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        return cloudpickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])

    def each(cluster: object, measure: Any, name: str, wanted: Sequence[Any], code: object) -> Iterator[Any]:
        counts.append(len(wanted))
        there = copied(measure)
        return ((one, there(copied(one))) for one in wanted)

    monkeypatch.setattr(prepared_module, "each", each)
    monkeypatch.setattr(quantize_module, "each", each)
    return counts
