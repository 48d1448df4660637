"""A checkpoint stored small: python -m tools.shrink_checkpoint IN.pt OUT.licw [KODAK]; its model card goes with it.

With a folder of test images the card says what the small file does on them, by real strings.
"""

import json
import sys
from pathlib import Path
from typing import Any

from licquant.digests import file_sha256
from licquant.models.load import read_state
from licquant.models.shards import checkpoint_sha256
from licquant.models.small import to_small
from licquant.train.card import load_checkpoint, loss_of, rd_point


def main() -> None:
    """The new card says what the weights were stored as before: ``full_sha256``."""
    source, target, *images = map(Path, sys.argv[1:])
    target.write_bytes(to_small(read_state(source)))
    beside = source.with_suffix(".json")
    card = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    card = {key: value for key, value in card.items() if key != "shards"}
    card |= {"sha256": file_sha256(target), "full_sha256": checkpoint_sha256(source)}
    _write(target, card)
    if images:
        _write(target, card | {images[0].name: _point(target, images[0])})
    print(f"{target}: {target.stat().st_size:,} bytes")


def _point(checkpoint: Path, images: Path) -> dict[str, float]:
    lmbda, metric = loss_of(checkpoint)
    assert lmbda is not None, f"{checkpoint}: its model card does not say λ"
    return rd_point(load_checkpoint(checkpoint), images, lmbda, metric)


def _write(checkpoint: Path, card: dict[str, Any]) -> None:
    checkpoint.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
