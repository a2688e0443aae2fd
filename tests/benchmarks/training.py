"""Images per second of training and validation on two cores, EfficientNet-Lite0, batch 32, beside others, in turns.

``python -m tests.benchmarks.training --bench DIR``: DIR holds step_limit.py (the bare step on synthetic data; its best
eager row counts) and hf_trainer.py (Hugging Face's Trainer with its example's transforms). imgcls reads real JPEG
files, each time anew; warm epochs count.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median

import lightning.pytorch as pl
import torch

import imgcls
from imgcls.commands.trainer import best_precision
from imgcls.runtime.warning_filters import quieten
from tests.benchmarks.beside import THREE_EPOCHS, Clock, best_rows, hf_rate, script, write_photos
from tests.helpers.real_data import write_efficientnet_lite0

BATCH = 32
STEP_TARGET, FORWARD_TARGET = 0.92, 0.9
HF_TARGETS = {True: 2.4, False: 2.0}  # whether the processor computes in bfloat16


def our_rates(model: Path, photos: Path, steps: int, precision: str) -> dict[str, float]:
    """Images per second of imgcls: training, its best epoch but the first, and validation, its best pass of three."""
    data = imgcls.ImageDataModule(
        imgcls.DatasetClasses(train=str(photos), validation=str(photos)),
        batch_size=BATCH,
        num_workers=1,
        on_leak="warn",
    )
    clock = Clock(BATCH * steps)
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        **THREE_EPOCHS,
        callbacks=[clock, imgcls.MetricsLogger()],
    )
    classifier = imgcls.ImageClassifier(str(model))
    trainer.fit(classifier, datamodule=data)
    trainer.limit_val_batches = 1.0
    for _ in range(3):
        trainer.validate(classifier, datamodule=data, verbose=False)
    return {"train": clock.warm, "infer": clock.forward}


def report(what: str, ours: list[float], theirs: list[float], name: str, target: float) -> None:
    """Print the medians of both, their ratio, and the ratio that is wanted."""
    ratios = sorted(own / other for own, other in zip(ours, theirs, strict=True))
    print(
        f"{what}: imgcls {median(ours):.1f} img/s, {name} {median(theirs):.1f} img/s, ratio {median(ratios):.2f} "
        f"({ratios[0]:.2f} .. {ratios[-1]:.2f}; at least {target} is wanted)"
    )


def measure(options: argparse.Namespace, model: Path, photos: Path) -> None:
    """Run all in turns, and print."""
    precision = best_precision(on_gpu=False)
    limit, trainer = script(options.bench, "step_limit.py"), script(options.bench, "hf_trainer.py")
    ours: list[dict[str, float]] = []
    limits: list[dict[str, float]] = []
    others: list[float] = []
    for number in range(options.rounds):
        if limit:
            limits.append(best_rows(limit, model, BATCH, "cpu"))
        ours.append(our_rates(model, photos, options.steps, precision))
        if trainer:
            others.append(hf_rate(trainer, photos, model, BATCH))
        last = {"imgcls": ours[-1], "bare step": limits[-1:], "HF Trainer": others[-1:]}
        print(f"round {number + 1}: {last}", flush=True)
    rates = {kind: [row[kind] for row in ours] for kind in ("train", "infer")}
    for kind, rate in rates.items():
        print(f"{kind}, {precision}: imgcls {median(rate):.1f} img/s")
    if limits:
        report("training", rates["train"], [row["train"] for row in limits], "bare step", STEP_TARGET)
        report("validation", rates["infer"], [row["infer"] for row in limits], "bare forward", FORWARD_TARGET)
    if others:
        report("training", rates["train"], others, "HF Trainer", HF_TARGETS[precision == "bf16-mixed"])


def main() -> None:
    """Measure on two cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, help="folder of step_limit.py and hf_trainer.py")
    parser.add_argument("--model", type=Path, help="another model than EfficientNet-Lite0, a folder with weights")
    parser.add_argument("--steps", type=int, default=12, help="batches of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quieten()
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or write_efficientnet_lite0(Path(folder, "model"))
        measure(options, model, write_photos(Path(folder, "photos"), BATCH * options.steps))


if __name__ == "__main__":
    main()
