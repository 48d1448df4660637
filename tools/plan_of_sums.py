"""A plan of 8 bits in which the sums of two tensors in g_a and g_s have more, for ``licquant quantize --plan``.

    python -m tools.plan_of_sums CHECKPOINT BITS -o PLAN.json

A residual network adds to one tensor again and again; rounded to 8 bits each time, it loses a little with each sum.
"""

import argparse
import json
from pathlib import Path

from licquant.config import LayerBits, Plan
from licquant.models.graph import ADDITION
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.network import uniform_plan
from licquant.train.card import load_checkpoint

WIDENED = ("g_a", "g_s")  # what a decoder's symbols come from stays narrow


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bits", type=int)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    plan = plan_of_sums(trace_model(load_checkpoint(arguments.checkpoint)), arguments.bits)
    arguments.output.write_text(json.dumps(plan.to_json()) + "\n", encoding="utf-8")


def plan_of_sums(traced: TracedModel, bits: int) -> Plan:
    """8 bits for everything but the sums of g_a and g_s."""
    plan = dict(uniform_plan(traced, 8, 8).items())
    sums = [
        step.name for part in WIDENED for step in traced.graphs[part] if step.kind == ADDITION and step.name in plan
    ]
    return Plan(plan | {name: LayerBits(plan[name].weight, bits) for name in sums})


if __name__ == "__main__":
    main()
