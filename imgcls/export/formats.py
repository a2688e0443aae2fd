"""The formats of ``imgcls export``; without heavy imports, so that a command line is checked at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgcls.errors import ConfigError

if TYPE_CHECKING:
    from imgcls.inference.classifier import Classifier

BATCHED = "model_batched.onnx"
INT8 = "model_int8.onnx"


@dataclass(frozen=True)
class ExportOptions:
    """Options of single formats.

    Args:
        batched: Also write a model for batches of images.
        quantize: Also write a model with 8-bit weights.
        from_network_input: Leave resize and crop out of the model.
        images: Files, folders and CSV files to calibrate ``quantize`` with; empty: images of the run.
    """

    batched: bool = False
    quantize: bool = False
    from_network_input: bool = False
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """What an exporter wrote.

    Args:
        command: The program, and its arguments, that predicts with the exported model in a process of its own. The
            options ``--list FILE --output CSV`` are added to it.
        tolerance: The largest difference of a probability.
        reads_otherwise: Returns why the program reads other pixels of a file than imgcls; "" if it does not.
        usage: Markdown for the card: a code block that predicts ``photo.jpg`` when it is run in the folder.
        notes: Paragraphs for the card, on the preprocessing.
        details: Further keys of export.json.
        prepare: Writes the files that the program reads instead of given ones to a folder, and returns their paths;
            None where it reads the files themselves.
    """

    command: list[str]
    tolerance: float
    usage: str
    notes: list[str] = field(default_factory=list)
    reads_otherwise: Callable[[str], str] = lambda _: ""
    details: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Sequence[str], Path], list[str]] | None = None


@dataclass(frozen=True)
class Format:
    """A format.

    Args:
        module: The module with ``write(classifier, folder, options) -> Written``.
        options: The options that it has.
        name: Its name in a sentence.
    """

    module: str
    options: frozenset[str]
    name: str

    def write(self, classifier: "Classifier", folder: Path, options: ExportOptions) -> Written:
        """Write the model of a classifier into an empty folder.

        Raises:
            ConfigError: If the format cannot express it; names what it is.
        """
        written: Written = import_module(self.module).write(classifier, folder, options)
        return written


FORMATS = {
    "hf": Format("imgcls.export.hf", frozenset(), "transformers.pipeline"),
    "onnx": Format("imgcls.export.onnx", frozenset({"batched", "quantize", "from_network_input"}), "onnxruntime"),
    "torch": Format("imgcls.export.torch_program", frozenset({"from_network_input"}), "torch.export"),
}


def check_options(name: str, options: ExportOptions) -> None:
    """Refuse an option that belongs to another format.

    Raises:
        ConfigError: Names the option, and the formats that have it.
    """
    if name not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got {name!r}")
    for option in (each.name for each in fields(options) if getattr(options, each.name) is True):
        if option not in FORMATS[name].options:
            having = " or ".join(f"--format {other}" for other, each in FORMATS.items() if option in each.options)
            raise ConfigError(f"--{option} belongs to {having}; --format {name} does not have it")


def default_folder(run_folder: Path | None, name: str) -> Path:
    """Return the folder of an export without ``--output``."""
    return (run_folder or Path()) / "export" / name
