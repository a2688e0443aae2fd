"""The command ``check``: scan every image, report, and end with an error if data must not be trained on."""

import json
import logging
from pathlib import Path

import cv2

from imgcls.check.findings import Fault, Findings, find_copies
from imgcls.check.html_report import html_page
from imgcls.check.inputs import images_of_configuration, images_of_folders
from imgcls.check.scan import Workers, map_images, scan_image
from imgcls.check.text_report import TextReport, remarks
from imgcls.commands.command import Parts
from imgcls.errors import ConfigError
from imgcls.runtime.atomic_files import write_text
from imgcls.runtime.output_file import check_output
from imgcls.runtime.tables import counted

log = logging.getLogger(__name__)

_ADVICE: dict[Fault, tuple[str, str]] = {
    "unreadable": ("image", "cannot be read: repair or remove them, or accept them with --allow unreadable"),
    "leakage": ("group", "of duplicates across splits: keep one image of each, or accept them with --allow leakage"),
}


class Check:
    """Checks the data of a configuration, or of folders; no model is built.

    Raises:
        ConfigError: If no images are given, or given twice, or a report cannot be written.
    """

    def __init__(self, parts: Parts) -> None:
        section = parts.section
        self.data = parts.data
        self.workers = Workers(self.data.num_workers, self.data.timeout)
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
            log.info("ckpt_path: ignored, since check does not read a checkpoint")

    def run(self) -> None:
        """Scan all images, and report.

        Raises:
            ConfigError: If an image cannot be read or is in several splits, unless that is allowed.
        """
        cv2.setNumThreads(0)  # parallel already, and OpenCV's threads do not survive a fork
        source = images_of_folders(self.images) if self.images else images_of_configuration(self.data)
        scanned = map_images(scan_image, source.images, self.workers, "scanning images")
        found = Findings(source, scanned, find_copies(source.images, scanned, self.workers))
        TextReport(found, self.files["json"]).print()
        if self.files["json"] is not None:
            self._write("json", json.dumps(found.as_json(), indent=1) + "\n")
            print(f"All findings: {self.files['json']}")
        if self.files["html"] is not None:
            self._write("html", html_page(found, self.workers))
            print(f"Page: {self.files['html']}")
        self._conclude(found)

    def _write(self, kind: str, text: str) -> None:
        write_text(Path(str(self.files[kind])).expanduser(), text)

    def _conclude(self, found: Findings) -> None:
        faults = {fault: counted(count, _ADVICE[fault][0]) for fault, count in found.faults.items()}
        refused = [f"{count} {_ADVICE[fault][1]}" for fault, count in faults.items() if fault not in self.allowed]
        if refused:
            raise ConfigError(f"check: {'; '.join(refused)}")
        said = [f"{fault} allowed ({count})" for fault, count in faults.items()] or ["no faults found"]
        conflicts = [group for group in found.exact if group.two_labels]
        said += [counted(len(conflicts), "image") + " with two labels"] * bool(conflicts)
        copies = sum(not group.leak and group not in conflicts for group in found.copies)
        said += [counted(copies, "group") + " of duplicates"] * bool(copies)
        said += [counted(len(found.long), "long image")] * bool(found.long)
        said += [counted(len(remarks(found)), "remark")] * bool(remarks(found))
        print(f"{counted(len(found.source.images), 'image')}: {', '.join(said)}")
