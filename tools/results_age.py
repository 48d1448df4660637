"""Which results are older than the code that they depend on: those are worth measuring again.

    python tools/results_age.py

Prints a line for each result: how many commits have touched the sources of ``depends_on`` since its own, and the
last of them.
"""

import subprocess
import sys

from make_results import RESULTS, ROOT, read


def commits_since(commit: str, paths: list[str]) -> list[str]:
    """One line for each commit after ``commit`` that touched the paths, the newest first."""
    done = subprocess.run(
        ["git", "log", "--format=%h %cs %s", f"{commit}..HEAD", "--", *paths], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return done.stdout.splitlines()


def main() -> int:
    for path in sorted(RESULTS.glob("*.json")):
        record = read(path.stem)
        if record["commit"] is None:
            print(f"unknown  {path.stem}: its commit is not known")
            continue
        try:
            later = commits_since(record["commit"], record["depends_on"])
        except ValueError as error:
            print(f"unknown  {path.stem}: {error}")
            continue
        state = f"older: {len(later)} commits since, the last {later[0]:.60}" if later else "up to date"
        print(f"{record['date']}  {path.stem}: {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
