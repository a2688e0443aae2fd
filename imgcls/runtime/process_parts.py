"""Output files of which each process of a run writes a part."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import lightning.pytorch as pl

from imgcls.runtime.atomic_files import PartialFile, hidden, naming, replacing
from imgcls.runtime.distributed import gather
from imgcls.runtime.resumable_output import Output


class ProcessParts:
    """Hidden files with the rows of each process, which the first process joins when all are complete.

    One process writes each file as a whole.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = outputs
        self._files = ExitStack()

    def open(self, trainer: pl.Trainer) -> list[PartialFile]:
        """Open this process's part of each file."""
        paths = [self._parts(output, trainer)[trainer.global_rank] for output in self.outputs]
        return [self._files.enter_context(replacing(path)) for path in paths]

    def finish(self, trainer: pl.Trainer) -> None:
        """Join the parts in the order of the ranks; all processes must call this."""
        self._files.close()
        gather(None)  # afterwards all parts are complete
        if trainer.is_global_zero and trainer.world_size > 1:
            for output in self.outputs:
                output.join(self._parts(output, trainer), output.target)

    def abandon(self, reason: BaseException) -> None:
        """Remove the incomplete parts."""
        self._files.__exit__(type(reason), reason, reason.__traceback__)

    def _parts(self, output: Output, trainer: pl.Trainer) -> list[Path]:
        if trainer.world_size == 1:
            return [output.target]
        return [hidden(output.target, f".part{rank}") for rank in range(trainer.world_size)]


def concatenate(parts: Sequence[Path], target: Path) -> None:
    """Make a file of its parts, and remove them; a single part is renamed."""
    if len(parts) == 1:
        with naming(target):
            parts[0].replace(target)
        return
    with replacing(target) as joined:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, joined)
    for part in parts:
        part.unlink()
