"""Train by Ray Train: its workers, on whatever machines a cluster has, are the processes of one ``licquant train``.

    python deploy/train.py 8 -o /shared/model.pt --accelerator cuda --data /shared/photos --cache /shared/cache --resume

After the number of workers come the words of ``licquant train``; paths are on a file system that all machines have.
Needs pip install 'ray[train]' beside licquant[toolkit] on every machine. RAY_ADDRESS names the cluster; without it the
workers are on this machine. The same command again goes on where a run ended.
"""

import argparse
import os
from pathlib import Path

from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def work(words: list[str]) -> None:
    """What each worker runs. Ray Train has set what torchrun would have set, and connected the processes."""
    os.environ.setdefault("TORCHELASTIC_RUN_ID", "ray")  # by which licquant knows that it was started so
    from licquant.commands.app import main

    try:
        main(["train", *words])
    except SystemExit as end:  # how commands end; Ray takes it for a fault
        if end.code:
            raise RuntimeError(f"licquant train ended with status {end.code}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workers", type=int)
    parser.add_argument("-o", "--output", type=Path, required=True, help="as of licquant train")
    parser.add_argument("--accelerator", default="cpu", help="as of licquant train")
    options, words = parser.parse_known_args()
    words += ["--output", str(options.output), "--accelerator", options.accelerator]
    scaling = ScalingConfig(num_workers=options.workers, use_gpu=options.accelerator == "cuda")
    # Ray Train writes a few small files of its own where all machines see them: beside the model.
    kept = RunConfig(name="ray-train", storage_path=str(options.output.absolute().parent))
    TorchTrainer(work, train_loop_config=words, scaling_config=scaling, run_config=kept).fit()
