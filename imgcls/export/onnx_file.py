"""Write a module as ONNX."""

from pathlib import Path

import torch
from torch import nn

from imgcls.export.graph import GraphInput, export_program, quiet

OPSET = 20
"""Version of the ONNX operators: that of ONNX 1.15, which onnxruntime reads since 1.17."""

_LARGEST = 2**31 - 2**24  # bytes of the weights in a single file: protobuf ends at 2 GiB


def save_onnx(
    module: nn.Module, given: GraphInput, file: Path, texts: dict[str, str], output: str = "probabilities"
) -> None:
    """Write a module as ONNX, and check the file with full inference of shapes.

    Args:
        module: The module.
        given: Its input.
        file: The file; weights of more than 2 GB are written beside it.
        texts: Its ``metadata_props``.
        output: Name of its output.
    """
    import onnx

    program = export_program(module, given)
    with quiet(), torch.no_grad():
        exported = torch.onnx.export(
            program,
            input_names=[given.name],
            output_names=[output],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None  # noqa: S101 - it is, with dynamo
    shape = exported.model.graph.inputs[0].shape
    assert shape is not None  # noqa: S101 - the exporter states it
    for axis, name in given.axes.items():
        shape[axis] = name
    exported.model.metadata_props.update(texts)
    size = sum(value.nbytes for value in module.state_dict().values())
    exported.save(str(file), external_data=size > _LARGEST)
    onnx.checker.check_model(str(file), full_check=True)
