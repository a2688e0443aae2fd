"""The command ``check``: looks at every image, reports, and ends with an error where data must not be trained on."""

import json
import logging
from pathlib import Path

import cv2

from imgcls.callbacks.prediction_writer import check_output
from imgcls.check.findings import Fault, Findings, find_copies
from imgcls.check.html_report import write_page
from imgcls.check.inputs import Source, of_configuration, of_folders
from imgcls.check.scan import Crew, apply, look_at
from imgcls.check.text_report import Listing, counted, remarks
from imgcls.commands.command import Parts
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import write_text

log = logging.getLogger(__name__)

_SAID: dict[Fault, tuple[str, str]] = {
    "unreadable": ("image", "cannot be read: repair or remove them, or accept them with --allow unreadable"),
    "leakage": ("group", "of duplicates across splits: keep one image of each, or accept them with --allow leakage"),
}


class Check:
    """A look at the data.

    Args:
        parts: The configuration and what is made of it; the model is not built.

    Raises:
        ConfigError: If no images are given, or given twice, or a report cannot be written.
    """

    def __init__(self, parts: Parts) -> None:
        section = parts.section
        self.data = parts.data
        self.crew = Crew(self.data.num_workers, self.data.timeout)
        self.images: list[str] = section["images"] or []
        self.allowed: list[Fault] = section["allow"] or []
        self.files: dict[str, str | None] = {kind: section[kind] for kind in ("json", "html")}
        given = [split for split, data in self.data.datasets.items() if data is not None]
        if self.images and given:
            raise ConfigError(
                f"check: --images and data.dataset_classes.{given[0]} are both given; leave out one of them"
            )
        for kind, file in self.files.items():
            if file is not None:
                check_output(file, f"--{kind}", f"check.{kind}")
        if section["ckpt_path"] is not None:
            log.info("ckpt_path: check looks at data alone, and reads no checkpoint")

    def run(self) -> None:
        """Look at all images, and report.

        Raises:
            ConfigError: If an image cannot be read or is in several splits, unless that is allowed.
        """
        cv2.setNumThreads(0)  # processes and threads of ours are the parallelism, and OpenCV's do not survive a fork
        found = self._look(of_folders(self.images) if self.images else of_configuration(self.data))
        Listing(found, self.files["json"]).print()
        if self.files["json"] is not None:
            self._write("json", json.dumps(found.as_json(), indent=1) + "\n")
        if self.files["html"] is not None:
            self._write("html", write_page(found, self.crew))
        self._judge(found)

    def _look(self, source: Source) -> Findings:
        looks = apply(look_at, source.items, self.crew, "looking at images")
        return Findings(source, looks, find_copies(source.items, looks, self.crew))

    def _write(self, kind: str, text: str) -> None:
        write_text(Path(str(self.files[kind])).expanduser(), text)

    def _judge(self, found: Findings) -> None:
        faults = {fault: counted(count, _SAID[fault][0]) for fault, count in found.faults.items()}
        refused = [f"{count} {_SAID[fault][1]}" for fault, count in faults.items() if fault not in self.allowed]
        if refused:
            raise ConfigError(f"check: {'; '.join(refused)}")
        notes = len(remarks(found)) + len(found.long) + sum(not group.leak for group in found.copies)
        said = [f"{fault} allowed ({count})" for fault, count in faults.items()] or ["no fault found"]
        conflicts = sum(group.two_labels for group in found.exact)
        said += [counted(conflicts, "image") + " with two labels"] * bool(conflicts)
        said += [counted(notes, "remark") + " above"] * bool(notes)
        print(f"{counted(len(found.source.items), 'image')}: {', '.join(said)}")
