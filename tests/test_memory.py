"""Tests of memory that is kept from step to step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from imgcls.entry import main

main(sys.argv[1:])
np.ones(64 * 1024 * 1024, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(64 * 1024 * 1024, np.uint8)
print("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_FEW = 16  # page faults; 64 MiB are 16,384 pages, or 32 huge ones


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="no glibc")
@pytest.mark.parametrize(("own", "keeps"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "1048576"}, False)])
def test_a_run_on_the_cpu_keeps_what_it_frees(
    own: dict[str, str], keeps: bool, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    line = ["fit", f"--data.dataset_classes.train={photos}", f"--model.model_name={tiny_model}", "--data.num_workers=0"]
    line += ["--model.pretrained=false", "--trainer.fast_dev_run=true", f"--experiment.output_dir={tmp_path}"]
    program = [sys.executable, "-c", _PROGRAM, *line]
    done = subprocess.run(program, env=os.environ | own, capture_output=True, text=True, check=True)
    assert (int(done.stdout.split("faults ")[1]) < _FEW) is keeps
