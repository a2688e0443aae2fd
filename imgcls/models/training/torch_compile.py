"""torch.compile for a network: in place, so that neither its name nor its weights' names change."""

import torch
from torch import nn

from imgcls.errors import ConfigError

BACKEND = "inductor"

_KEY = "model.init_args.compile"
_MOST_GRAPHS = 64  # of one function, those of former trials too; behind the 8 of torch the rest would run uncompiled


def compile_in_place(network: nn.Module, device: torch.device) -> None:
    """Compile a network's forward pass; the work is done at the first batch of each size and mode.

    Args:
        network: The network.
        device: Where it will run.

    Raises:
        ConfigError: If nothing can be compiled for that device on this machine.
    """
    _check_compiler(device)
    limits = torch.compiler.config
    limits.recompile_limit = max(limits.recompile_limit, _MOST_GRAPHS)
    # an epoch has batches of two sizes: a program for each is faster than one that takes any size
    network.compile(backend=BACKEND, dynamic=False)


def _check_compiler(device: torch.device) -> None:
    """Compile two additions, so that a missing compiler shows before the run folder fills."""
    try:
        torch.compile(_add_twice, backend=BACKEND)(torch.zeros(4, device=device))
    except RuntimeError as error:  # what torch's compiler raises is derived from it
        raise ConfigError(
            f"{_KEY}: true, but nothing compiles on this machine: {_reason(error)}; leave it false, or install what is "
            "missing (on a processor a C++ compiler: g++)"
        ) from error


def _add_twice(values: torch.Tensor) -> torch.Tensor:
    return values + 1 + values


def _reason(error: RuntimeError) -> str:
    """Return the line of an error that says what is missing; the first may name the backend alone."""
    lines = [line for line in str(error).splitlines() if line and not line.endswith("raised:")]
    return lines[0].rstrip(".") if lines else type(error).__name__
