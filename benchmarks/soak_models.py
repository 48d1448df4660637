"""The artifacts that the soak codes with: every family, small, and a dynamic one. Making them needs the training stack.

python -m benchmarks.soak_models DIR
"""

from pathlib import Path

import typer

from licquant import pipeline
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_programs import UNEVEN, dynamic_artifact
from tests.models_for_tests import SMALL, hand_made, small_model


def main(folder: Path) -> None:
    """Write one .licq for every small model of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    images = dead_leaves(2, 128)
    for name in SMALL:
        pipeline.quantize(small_model(name), images).artifact.save(folder / f"{name}.licq")
    pipeline.quantize(hand_made(), images).artifact.save(folder / "hand-made.licq")
    dynamic_artifact(widths=UNEVEN).save(folder / "dynamic.licq")


if __name__ == "__main__":
    typer.run(main)
