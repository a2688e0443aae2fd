"""The parts of an unknown network, found on the meta device, where shapes flow and nothing is computed."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Anatomy:
    """What a network is made of, by module and parameter name.

    Args:
        heads: Modules that hold a parameter whose shape depends on the number of classes.
        layers: For each weight layer of the encoder, in the order of execution, the names of its parameters.
        unused: Parameters that take no part in the classification, and never get a gradient.
    """

    heads: list[str]
    layers: list[list[str]]
    unused: list[str]


def examine(network: PreTrainedModel, size: tuple[int, int]) -> Anatomy:
    """Find heads, layers and unused parameters of an image classifier.

    A weight layer is a module that owns parameters; one that is never called itself counts with its nearest caller.

    Args:
        network: The classifier, with ``n`` classes.
        size: Height and width of its input in pixels.
    """
    twin = _twin(network)
    heads = _heads(network, twin)
    order = _execution_order(twin, size)
    unused = [name for name, parameter in twin.named_parameters() if parameter.grad is None]
    layers: dict[str, list[str]] = {name: [] for name in order}
    for name, _ in twin.named_parameters():
        owner = name.rpartition(".")[0]
        if owner in heads or name in unused:
            continue
        while owner not in layers:
            owner = owner.rpartition(".")[0]
        layers[owner].append(name)
    return Anatomy(heads, [names for names in layers.values() if names], unused)


def _twin(network: PreTrainedModel) -> PreTrainedModel:
    config = copy.deepcopy(network.config)
    config.num_labels += 1
    with torch.device("meta"):
        return type(network)(config).eval()


def _heads(network: nn.Module, twin: nn.Module) -> list[str]:
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    changed = [name.rpartition(".")[0] for name, parameter in twin.named_parameters() if parameter.shape != shapes[name]]
    if not changed:
        raise ValueError(f"{type(network).__name__} has no classification head")
    return list(dict.fromkeys(changed))


def _execution_order(twin: nn.Module, size: tuple[int, int]) -> list[str]:
    order: dict[str, None] = {}
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, module in twin.named_modules()
    ]
    with FakeTensorMode(allow_non_fake_inputs=True):  # plain meta tensors fail where values are asked for (perceiver)
        images = torch.empty(2, 3, *size, device="meta")
        first_output(twin(pixel_values=images)).sum().backward()
    for hook in hooks:
        hook.remove()
    return list(order)


def first_output(output: object) -> torch.Tensor:
    """Return the logits of a transformers output; some models call them otherwise."""
    logits = getattr(output, "logits", None)
    return logits if logits is not None else output[0]  # type: ignore[index, no-any-return]
