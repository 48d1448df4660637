"""Records and images that fuzzing found: each must be refused with the declared error, in one line, at once."""

import json
import struct
import zlib
from pathlib import Path

import pytest

from fuzz.examine import Examiner
from fuzz.target import SEEDS
from fuzz.toolkit_targets import TARGETS
from licquant.errors import ImageError, ModelError
from licquant.images import read_image
from licquant.train.card import describe_init, lmbda_of

DEEP = b"[" * 100_000


def changed(seed: str, **values: object) -> bytes:
    """A seed that is a JSON object, with other values."""
    return json.dumps(json.loads((SEEDS / seed).read_bytes()) | values).encode()


@pytest.mark.parametrize(
    ("target", "data"),
    [
        ("plan", DEEP),
        ("plan", changed("plan/plan", layers={"a\nb": {"weight": 8, "activation": 8}})),
        ("plan", changed("plan/plan", layers={"\ud800": {"weight": 8, "activation": 8}})),
        ("training-plan", b'{"runs":' + DEEP),
        ("training-plan", b"a = " + DEEP),
        ("training-plan", changed("training-plan/json", defaults={"model": "m", "learning_rate": 10**400})),
        ("training-plan", changed("training-plan/json", runs=[{"model": "m", "lmbda": 1, "name": "a\nb"}] * 2)),
        ("training-plan", changed("training-plan/json", runs=[{"model": "m", "lmbda": 1, "init": "\ud800"}])),
        ("training-plan", changed("training-plan/json", runs=[{"model": "m", "lmbda": 1, "init": "n" * 5000}])),
        ("card", DEEP),
        ("card", changed("card/whole", lmbda="much")),
        ("card", changed("card/whole", lmbda=10**400)),
        ("card", changed("card/shards", shards=["shards-1of1.pt"])),
        ("latency", DEEP),
        ("latency", changed("latency/table", size=[float("inf"), 1])),
        ("latency", changed("latency/table", machine=1.5)),
        ("latency", changed("latency/table", machine={"cores": "\n"})),
        ("latency", changed("latency/table", rest_ms="soon")),
    ],
)
def test_a_record_is_refused_in_one_line(target: str, data: bytes, tmp_path: Path) -> None:
    found = TARGETS[target]
    examiner = Examiner(found.read, found.legal, tmp_path)
    examiner(data)
    assert examiner.record()["findings"] == []


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 10**400, "much", None, [1]])
def test_a_card_whose_lambda_is_none_is_refused_in_one_line(value: object, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"lmbda": value}))
    with pytest.raises(ModelError, match="must be a finite number above 0") as refusal:
        lmbda_of(tmp_path / "c.pt", None)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
    assert describe_init(tmp_path / "c.pt") == "c.pt"  # no reason to lose the model that began from it


def _png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("size", [(1, 80_000_000), (80_000_000, 1), (8900, 8900)])
@pytest.mark.parametrize("kind", ["P4", "P6", "png"])
def test_a_header_alone_makes_no_room_for_its_image(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    header = _png_header(*size) if kind == "png" else b"%s %d %d 255 " % (kind.encode(), *size)

    def read(data: bytes) -> None:
        path = tmp_path / "x"
        path.write_bytes(data)
        read_image(path)

    examiner = Examiner(read, (ImageError,), tmp_path, max_memory=64 << 20)
    examiner(header + bytes(1000))
    assert examiner.record()["findings"] == []
