"""A checkpoint stored small: python -m tools.shrink_checkpoint IN.pt OUT.licw; its model card goes with it."""

import json
import sys
from pathlib import Path

from licquant.digests import file_sha256
from licquant.models.load import read_state
from licquant.models.shards import checkpoint_sha256
from licquant.models.small import to_small


def main() -> None:
    """The new card says what the weights were stored as before: ``full_sha256``."""
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(to_small(read_state(source)))
    beside = source.with_suffix(".json")
    card = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    card = {key: value for key, value in card.items() if key != "shards"}
    card |= {"sha256": file_sha256(target), "full_sha256": checkpoint_sha256(source)}
    target.with_suffix(".json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
