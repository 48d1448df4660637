"""The reference models beside published ones: results/reference-models.json, docs/reference-models.png.

    python tools/make_reference_models.py --published DIR

Our points are those on the model cards in checkpoints/, Kodak by real strings; DIR holds CompressAI's own result files
(``compressai-MODEL_mse_cuda.json``), and the paper's for ELIC. Then ``python tools/make_results.py`` fills the page.
"""

import argparse
import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from make_results import RESULTS, ROOT
from matplotlib.figure import Figure
from scipy.interpolate import PchipInterpolator

from licquant.errors import DataError
from licquant.evaluate.metrics import bd_rate
from licquant.evaluate.provenance import machine

Curve = tuple[list[float], list[float]]  # bits per pixel, PSNR in dB, both rising
_OF_PAPERS = {"elic2022-official": "paper-elic2022_mse.json"}  # what CompressAI has no weights of


def our_cards() -> dict[str, list[dict[str, Any]]]:
    """Model → cards with a point on Kodak by real strings, by λ."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((ROOT / "checkpoints").glob("*.json")):
        card = json.loads(path.read_text(encoding="utf-8"))
        if "bpp_real_strings" in card.get("kodak", {}):
            found.setdefault(card["model"], []).append(card)
    return {model: sorted(cards, key=lambda card: card["lmbda"]) for model, cards in found.items()}


def curve(cards: list[dict[str, Any]]) -> Curve:
    points = [card["kodak"] for card in cards]
    return [point["bpp_real_strings"] for point in points], [point["psnr_mean"] for point in points]


def published_curve(folder: Path, model: str) -> Curve:
    name = _OF_PAPERS.get(model, f"compressai-{model}_mse_cuda.json")
    results = json.loads((folder / name).read_text(encoding="utf-8"))["results"]
    return results["bpp"], results["psnr-rgb"]


def excess(ours: Curve, theirs: Curve) -> list[float]:
    """How many percent more bits each of our points takes than the published curve at the same PSNR."""
    rate_at = PchipInterpolator(theirs[1], theirs[0], extrapolate=False)
    return [round(100 * (bpp / float(rate_at(psnr)) - 1), 1) for bpp, psnr in zip(*ours, strict=True)]


def bd(ours: Curve, theirs: Curve) -> float | None:
    """BD-rate in percent; None for fewer points than it needs."""
    try:
        return round(bd_rate(theirs[0], theirs[1], ours[0], ours[1]), 1)
    except DataError:
        return None


def record(cards: dict[str, list[dict[str, Any]]], published: dict[str, Curve]) -> dict[str, Any]:
    rows = []
    for model, of_model in cards.items():
        ours, theirs = curve(of_model), published[model]
        for card, more in zip(of_model, excess(ours, theirs), strict=True):
            point = card["kodak"]
            rows.append([model, card["lmbda"], point["bpp_real_strings"], point["psnr_mean"], more, None])
        rows[-1][-1] = bd(ours, theirs)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    formats = ("", "{:g}", "{:.4f}", "{:.2f} dB", "{:+.1f} %", "{:+.1f} %")
    names = ("model", "λ", "bpp", "PSNR", "bits at this PSNR, against the published curve", "BD-rate against it")
    return {
        "title": "The FP32 reference models on 24 Kodak images, real strings, against published curves",
        "command": "python tools/make_reference_models.py --published DIR",
        "commit": commit.strip(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine()["cpu"],
        "checkpoints": {f"{m} {card['lmbda']:g}": card["sha256"] for m, of in cards.items() for card in of},
        "depends_on": ["checkpoints"],
        "note": "Points of the model cards.",
        "columns": [{"name": n} | ({"format": f} if f else {}) for n, f in zip(names, formats, strict=True)],
        "rows": rows,
    }


def draw(cards: dict[str, list[dict[str, Any]]], published: dict[str, Curve], path: Path) -> None:
    columns, lines = 3, -(-len(cards) // 3)
    figure = Figure(figsize=(4 * columns, 3.6 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(cards) :]:
        axes.set_axis_off()
    for axes, (model, of_model) in zip(panels, cards.items(), strict=False):
        axes.plot(*published[model], "o-", color="0.6", markersize=4, label="published")
        axes.plot(*curve(of_model), "s-", color="C0", markersize=4, label="reference models here")
        axes.set(title=model, xlabel="bits per pixel", ylabel="PSNR in dB", xlim=(0, 1.6), ylim=(26, 41))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--published", type=Path, required=True)
    folder = parser.parse_args().published
    cards = our_cards()
    published = {model: published_curve(folder, model) for model in cards}
    text = json.dumps(record(cards, published), indent=1, ensure_ascii=False) + "\n"
    (RESULTS / "reference-models.json").write_text(text, encoding="utf-8")
    draw(cards, published, ROOT / "docs" / "reference-models.png")


if __name__ == "__main__":
    main()
