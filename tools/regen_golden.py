"""Rewrite the golden files of tests/golden and their manifest.

Run this only when a stored format changes on purpose: ``python tools/regen_golden.py --why "..."``.
Old files in the field then no longer decode the same way, so the format's version should have changed too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def main() -> None:
    """Write every golden file, and its SHA-256 with the reason into manifest.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--why", required=True, help="why the stored bytes change; goes into the manifest")
    why = parser.parse_args().why
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    made = {}
    for module in sorted(GOLDEN.glob("golden_*.py")):
        made |= runpy.run_path(str(module))["make"]()

    manifest_path = GOLDEN / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    for name, data in made.items():
        digest = hashlib.sha256(data).hexdigest()
        if manifest.get(name, {}).get("sha256") != digest:
            manifest[name] = {"sha256": digest, "bytes": len(data), "why": why}
        (GOLDEN / name).write_bytes(data)
    manifest_path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
