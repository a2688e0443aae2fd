"""Tests of memory that is kept from step to step."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import os, resource, sys
import numpy as np
from imgcls.cli.main import main

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

main(sys.argv[1:])
np.ones(1 << 26, np.uint8)
before = faults()
np.ones(1 << 26, np.uint8)
print("faults", faults() - before)
before = held()
if os.fork():
    os.wait()
    print("given back", before - held())
"""
_FEW = 16  # page faults; 64 MiB are 16,384 pages, or 32 huge ones


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="no glibc")
@pytest.mark.parametrize(("own", "keeps"), [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "1048576"}, False)])
def test_a_run_on_the_cpu_keeps_what_it_frees_until_it_forks(
    own: dict[str, str], keeps: bool, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    line = ["fit", f"--data.dataset_classes.train={photos}", f"--model.model_name={tiny_model}", "--data.num_workers=0"]
    line += ["--model.pretrained=false", "--trainer.fast_dev_run=true", f"--experiment.output_dir={tmp_path}"]
    program = [sys.executable, "-c", _PROGRAM, *line]
    done = subprocess.run(program, env=os.environ | own, capture_output=True, text=True, check=True)
    assert (int(re.findall(r"faults (\d+)", done.stdout)[0]) < _FEW) is keeps
    assert (int(re.findall(r"given back (-?\d+)", done.stdout)[0]) >= 1 << 26) is keeps
