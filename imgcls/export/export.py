"""Export a classifier: write it, compare it on real files, describe it."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from imgcls.checkpoints.run_folder import run_folder_of
from imgcls.errors import RunError, in_lines
from imgcls.export.card import description, write_card
from imgcls.export.formats import FORMATS, ExportOptions, Written, check_options, default_folder
from imgcls.export.images import images_to_compare
from imgcls.export.parity import Parity, check_parity
from imgcls.inference.classifier import Classifier
from imgcls.inference.load import load
from imgcls.runtime.output_folder import EXPORT, writing_folder
from imgcls.runtime.serialize import versions

log = logging.getLogger(__name__)


def load_exact(checkpoint: str | Path, config: str | None = None) -> Classifier:
    """Load a classifier as it is exported: on the CPU, in float32 whatever it was trained in.

    Args:
        checkpoint: The checkpoint.
        config: The config.yaml of the run, if its classes are the user's own.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    return load(checkpoint, device="cpu", config=config, precision="32-true")


def export(
    classifier: Classifier,
    name: str = "hf",
    output: Path | None = None,
    images: Sequence[str] = (),
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
    overwrite: bool = False,
) -> Path:
    """Write a classifier for other programs, and compare their predictions on real files.

    Args:
        classifier: The classifier, on the CPU in float32.
        name: The format: ``hf``, ``onnx`` or ``torch``.
        output: The folder; None for ``export/<name>`` in the run folder of the checkpoint, else in the working
            directory.
        images: Files, folders and CSV files to compare on; by default images of the run, else sample photos.
        options: Options of the format.
        overwrite: Replace the folder of an earlier export.

    Returns:
        The folder. It is there only if the comparison succeeded.

    Raises:
        ConfigError: If the format cannot express the classifier, or the folder exists.
        RunError: If a probability differs by more than the tolerance.
    """
    check_options(name, options)
    recorded, classifier.decode = classifier.decode, "exact"
    target = output or default_folder(run_folder_of(classifier.path), name)
    with writing_folder(target, overwrite, EXPORT) as folder:
        written = FORMATS[name].write(classifier, folder, replace(options, images=tuple(images)))
        parity, source = _compare(classifier, name, written, images)
        if recorded == "scaled":
            log.info("data.decode: scaled is not exported: other programs decode JPEGs whole, as decode: exact does")
        if parity.beyond:
            others = f" ({parity.beyond} of {parity.images} images differ)"
            raise RunError(
                f"the exported model differs from imgcls predict{others}; {target} is not written: "
                f"{parity.first_beyond}"
            )
        left_out = {os.path.join(*Path(path).parts[-2:]): reason for path, reason in parity.left_out.items()}
        compared = asdict(parity) | {"left_out": left_out, "source": source}
        about = _about(classifier, name, written) | {"decode": recorded, "parity": compared}
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (folder / EXPORT.marker).write_text(text, encoding="utf-8", errors="backslashreplace")
        write_card(classifier, folder, about, written)
    return target


def _compare(classifier: Classifier, name: str, written: Written, images: Sequence[str]) -> tuple[Parity, str]:
    """Compare an exported model, and log the result; return it, and in words what the images are."""
    with images_to_compare(classifier, images) as (paths, shown, source):
        parity = check_parity(classifier, written, paths, shown)
    program = FORMATS[name].name
    log.info("Compared %s with imgcls predict in float32 on %d %s: %s", program, parity.images, source, parity)
    if parity.left_out:
        lines = [f"{path}: {reason}" for path, reason in parity.left_out.items()]
        log.warning("Not compared:%s", in_lines(lines))
    return parity, source


def _about(classifier: Classifier, name: str, written: Written) -> dict[str, Any]:
    """Return what export.json says beside the comparison."""
    with classifier.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    run = run_folder_of(classifier.path)
    path = classifier.path.absolute()
    return {
        "format": name,
        "checkpoint": {"path": str(path.relative_to(run.parents[1]) if run else path.name), "sha256": digest},
        "versions": versions(),
        **description(classifier),
        **written.details,
    }
