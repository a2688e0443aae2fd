"""A device on which nothing is computed, and every wait of the host for it can be counted."""

import traceback
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ATEN = torch.ops.aten
# their results have a shape that follows from values: CUDA's kernels read those on the host
_SHAPED_BY_VALUES = {_ATEN.bincount, _ATEN.nonzero, _ATEN.masked_select, _ATEN._unique2, _ATEN.equal, _ATEN.is_nonzero}


class MetaAccelerator(Accelerator):
    """One device ``meta``."""

    def setup_device(self, device: torch.device) -> None:
        """Nothing to set up."""

    def teardown(self) -> None:
        """Nothing to tear down."""

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("meta")]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "meta"


class MetaStrategy(SingleDeviceStrategy):
    """Leaves the model there at the end: there are no values to bring back."""

    def __init__(self) -> None:
        super().__init__(device="meta")

    def reduce(self, tensor: Any, *_: Any, **__: Any) -> Any:
        """Lightning sums up the lengths of loaders so, before the first step, and reads whether they are 0."""
        return torch.ones(()) if isinstance(tensor, Tensor) else tensor

    def teardown(self) -> None:
        """Nothing to tear down."""


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation for which a host would wait for its device, and gives made-up values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        self.operations += 1
        packet = func.overloadpacket
        on_device = any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((args, options)))
        if packet is _ATEN._local_scalar_dense and on_device:
            self._note("a value is read")
            return 1.0
        if packet in _SHAPED_BY_VALUES and on_device:
            self._note(f"{packet} reads values")
            return torch.zeros(options.get("minlength", 1), dtype=torch.int64, device="meta")
        if packet is _ATEN.lift_fresh and on_device:
            self._note("a tensor is made of host values")
        if packet is _ATEN._to_copy:
            target = options.get("device")
            return self._copy(func, args, options, args[0].device, torch.device(target) if target else args[0].device)
        if packet is _ATEN.copy_:
            options = options | {"non_blocking": bool(args[2])} if len(args) > 2 else options
            return self._copy(func, args, options, args[1].device, args[0].device)
        return func(*args, **options)

    def _copy(self, func: Any, args: Sequence[Any], options: Any, source: torch.device, target: torch.device) -> Any:
        if source.type == "meta" != target.type:
            self._note("a copy to the host")
            return torch.zeros(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
        if target.type == "meta" != source.type and not options.get("non_blocking"):
            self._note("a blocking copy to the device")
        return func(*args[:2], **options) if func.overloadpacket is _ATEN.copy_ else func(*args, **options)

    def _note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/torch/" not in frame.filename]
        places = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames[-3:-8:-1])
        self.found.append(f"{what}: {places}")


class Done(Exception):
    """Enough steps are counted."""


class CountWaits(pl.Callback):
    """Counts the waits from the start of one step to the start of another, and then ends the run.

    Args:
        first: The step, from 0, with which the count begins.
        last: The last step that counts.
    """

    last_run: "CountWaits | None" = None

    def __init__(self, first: int = 3, last: int = 5) -> None:
        self.first = first
        self.last = last
        self.waits = Waits()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert pl_module.device.type == "meta"
        if batch_idx == 0:
            self.waits.__enter__()  # type: ignore[no-untyped-call]
        if batch_idx == self.first:
            self.waits.found, self.waits.operations = [], 0
        if batch_idx == self.last + 1:
            self.waits.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            CountWaits.last_run = self
            raise Done
