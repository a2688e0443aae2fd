"""torch.compile in place, so that the names of modules and weights do not change."""

import torch
from torch import nn

from imgcls.errors import ConfigError

BACKEND = "inductor"

_MAX_GRAPHS = 64  # per function, including those of former trials; after torch's default of 8 it falls back to eager


def compile_in_place(network: nn.Module, device: torch.device) -> None:
    """Compile a network's forward pass on a device, at the first batch of each size and mode.

    Raises:
        ConfigError: If nothing can be compiled for the device on this machine.
    """
    try:  # on two additions, to detect a missing compiler before the run starts
        torch.compile(_add_twice, backend=BACKEND)(torch.zeros(4, device=device))
    except RuntimeError as error:  # base class of the errors of torch's compiler
        raise ConfigError(
            f"model.init_args.compile: true, but torch.compile does not work on this machine: {_reason(error)}; set it "
            "to false or install what is missing (on a CPU a C++ compiler: g++)"
        ) from error
    limits = torch.compiler.config
    limits.recompile_limit = max(limits.recompile_limit, _MAX_GRAPHS)
    # an epoch has two batch sizes: one static graph for each is faster than a dynamic one
    network.compile(backend=BACKEND, dynamic=False)


def _add_twice(values: torch.Tensor) -> torch.Tensor:
    return values + 1 + values


def _reason(error: RuntimeError) -> str:
    """Return the line of an error that names the cause; the first may only name the backend."""
    lines = [line for line in str(error).splitlines() if line and not line.endswith("raised:")]
    return lines[0].rstrip(".") if lines else type(error).__name__
