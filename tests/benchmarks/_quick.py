"""Run hf_elpv.py on a CPU in bfloat16, as it computes on a GPU, and in channels-last: the same recipe, sooner.

``python -m tests.benchmarks._quick SCRIPT [argument …]``
"""

import runpy
import sys
from typing import Any

import torch
import transformers

_load = transformers.AutoModelForImageClassification.from_pretrained
_arguments = transformers.TrainingArguments


def _channels_last(*arguments: Any, **options: Any) -> torch.nn.Module:
    model: torch.nn.Module = _load(*arguments, **options)
    return model.to(memory_format=torch.channels_last)  # what a convolution puts out has its weight's format


def _bfloat16(*arguments: Any, **options: Any) -> transformers.TrainingArguments:
    return _arguments(*arguments, **(options | {"bf16": True, "use_cpu": True}))


if __name__ == "__main__":
    transformers.AutoModelForImageClassification.from_pretrained = _channels_last
    transformers.TrainingArguments = _bfloat16
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
