"""Processor time of evaluation and of training crops by kernel: ``python -m tests.benchmarks.kernels``.

One core, in turns; arrays in memory, without decoding. The ratios are those of OpenCV's kernel, which older checkpoints
keep, to the others, with the interval of a paired t test of their logarithms.
"""

import os
import time
from dataclasses import replace

import cv2
import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_sample_images

from imgcls.data.transforms.build import build_pipeline
from imgcls.data.transforms.model_transforms import eval_specs, less_cropped
from imgcls.data.transforms.pipeline import Pipeline
from imgcls.data.transforms.presets import preset_specs
from imgcls.images import Pixels
from imgcls.types import Preprocessing

PAIRS, IMAGES = 15, 100
CASES = {  # -> height and width
    "evaluation of 460 x 430": (460, 430),
    "evaluation of 300 x 300": (300, 300),
    "training crop of 375 x 500": (375, 500),
}


def images_of(height: int, width: int) -> list[Pixels]:
    """Parts of the sample photos."""
    rng = np.random.default_rng(0)
    photos = [cv2.resize(photo, (1000, 668), interpolation=cv2.INTER_AREA) for photo in load_sample_images().images]
    corners = [(rng.integers(668 - height), rng.integers(1000 - width)) for _ in range(IMAGES)]
    parts = [photos[n % 2][y : y + height, x : x + width] for n, (y, x) in enumerate(corners)]
    return [np.ascontiguousarray(part) for part in parts]


def pipelines(interpolation: str, trains: bool) -> dict[str, Pipeline]:
    """The default list of each kernel."""
    expected = Preprocessing(interpolation=interpolation)
    found = {}
    for kernel in ("opencv", "torchvision", "pillow"):
        theirs = replace(expected, kernel=kernel)
        specs = preset_specs("light", theirs) if trains else eval_specs(less_cropped(theirs))
        if trains and kernel == "pillow":  # which the presets do not use
            specs[0]["init_args"]["kernel"] = kernel
        found[kernel] = build_pipeline(specs, kernel)
    return found


def seconds(pipeline: Pipeline, images: list[Pixels]) -> float:
    """Processor time of an image."""
    start = time.process_time()
    for seed, image in enumerate(images):
        pipeline(image, seed)
    return (time.process_time() - start) / len(images)


def main() -> None:
    """Print milliseconds and ratios."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for case, shape in CASES.items():
        images = images_of(*shape)
        for interpolation in ("bilinear", "bicubic"):
            found = pipelines(interpolation, case.startswith("training"))
            for pipeline in found.values():
                seconds(pipeline, images)  # imports, and memory
            taken = np.array([[seconds(pipeline, images) for pipeline in found.values()] for _ in range(PAIRS)])
            print(f"{case}, {interpolation}")
            for kernel, times in zip(found, taken.T, strict=True):
                logs = np.log(taken[:, 0] / times)
                half = stats.t.ppf(0.975, PAIRS - 1) * logs.std(ddof=1) / np.sqrt(PAIRS)
                low, ratio, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
                faster = f"{ratio:.2f} times as fast [{low:.2f}, {high:.2f}]"
                print(f"  {kernel:12s} {1000 * np.median(times):6.3f} ms, {faster}")


if __name__ == "__main__":
    main()
