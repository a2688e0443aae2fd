"""The splits of a run: made from its datasets by rules, or restored from a checkpoint."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from imgcls.data.config import KEY
from imgcls.data.loading.stream_batches import check_streams
from imgcls.data.scan.bad_images import BadImages
from imgcls.data.scan.files import HashKind
from imgcls.data.scan.samples import SampleScan
from imgcls.data.splitting.checkpoint_split import RECORDED, check_unchanged, recorded_hold_out, recorded_kind
from imgcls.data.splitting.class_labels import (
    check_paths,
    class_names_of,
    is_multilabel,
    labels_of,
    refuse_empty,
    refuse_without_class_folders,
)
from imgcls.data.splitting.leakage import compares_content, refuse_leaks, refuse_trained
from imgcls.data.splitting.rules import SplitRules
from imgcls.data.splitting.split import Split
from imgcls.data.splitting.train_val_split import hold_out
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.datasets.folder import to_predict
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError, listed

log = logging.getLogger(__name__)

_SCANNED = {"fit": ("train", "validation", "test"), "validate": ("train", "validation"), "test": ("test",)}


class Splitter:
    """The splits of a run.

    Args:
        datasets: The dataset of each split, None where there is none.
        rules: How train is divided if there is no validation dataset.
        bad_images: How unreadable images are handled.
        class_names: The classes in the order of the outputs; empty to take them from train.
    """

    def __init__(
        self, datasets: dict[str, ImageDataset | None], rules: SplitRules, bad_images: BadImages, class_names: list[str]
    ) -> None:
        self.datasets = datasets
        self.rules = rules
        self.bad_images = bad_images
        self.class_names = class_names
        other = "dataset_classes.validation" if datasets["validation"] is not None else "train_on_validation: true"
        if rules.fold is not None and (datasets["validation"] is not None or rules.train_on_validation):
            raise ConfigError(f"{KEY}: give fold ({rules.fold}) or {other}, not both")
        check_streams(datasets, rules.train_on_validation)
        self.stage = ""
        self.multilabel = False
        self.scan = SampleScan()
        self.kind: HashKind = rules.content_hash  # the checkpoint's, if its split is restored
        self._scanned: list[ImageDataset] = []
        self._bad_rows: dict[str, list[int]] = {}
        self._leaks_checked = False
        self._splits: dict[str, Split] = {}
        self._recorded: dict[str, list[str]] | None = None
        self._recorded_labels: dict[str, list[str]] | None = None
        self._weights_record: Mapping[str, Any] | None = None
        self.trained_on: dict[str, list[str] | None] = {}
        """Evaluated split -> paths of its images that the checkpoint was trained on; None if they cannot be found."""

    def setup(self, stage: str) -> None:
        """Find the classes, the kind of labels, and images whose headers cannot be read, for a stage of Lightning.

        Raises:
            ConfigError: If a dataset or the class list is missing, only some datasets are multi-label, or images cannot
                be read.
        """
        self._change_stage(stage)
        if stage != "validate" or self.datasets["train"] is None:  # validation may be held out of train
            needed = {"fit": "train", "validate": "validation"}.get(stage, stage)
            required(self.datasets[needed], needed)
        if not self.class_names and (train := self.datasets["train"]) is not None:
            self.class_names = class_names_of(train)
            self.multilabel = is_multilabel({"train": train})
        if not self.class_names and stage != "predict":
            raise ConfigError("no class list: give dataset_classes.train, class_names, or a checkpoint with classes")
        names = _SCANNED.get(stage, ())
        if stage == "validate" and self.datasets["validation"] is not None:
            names = ("validation",)
        scanned = {name: data for name in names if (data := self.datasets[name]) is not None}
        if scanned:
            self.multilabel = is_multilabel(scanned)
        self._scanned = list(scanned.values())
        self._scan_headers(scanned)

    def _change_stage(self, stage: str) -> None:
        """Change the stage; a fit on train and validation together makes other splits than an evaluation."""
        if self.rules.train_on_validation and stage != self.stage:
            if self.stage == "fit" and "train" in self._splits:
                self.load_record(self.record())
            self._splits.clear()
        self.stage = stage

    def _scan_headers(self, datasets: Mapping[str, ImageDataset]) -> None:
        new = {name: data for name, data in datasets.items() if name not in self._bad_rows}
        for name, data in new.items():
            if name != "train":  # which may be a stream; an empty one has no classes
                refuse_empty(data, name)
            refuse_without_class_folders(data, name)
        found = {name: self.scan.unreadable(data) for name, data in new.items()}
        faults = {
            name: {str(new[name].samples["path"].iat[row]): reason for row, reason in reasons.items()}
            for name, reasons in found.items()
        }
        self.bad_images.add(faults, {name: len(data.samples) for name, data in new.items()})
        self._bad_rows |= {name: list(reasons) for name, reasons in found.items()}

    def reuse_datasets(self, other: "Splitter", names: list[str]) -> None:
        """Use datasets of another run, with their scanned headers and hashes."""
        self.scan = other.scan
        for name in names:
            if not isinstance(other.datasets[name], StreamImageDataset):  # a stream keeps its position
                self.datasets[name] = other.datasets[name]

    def uncached_datasets(self) -> list[ImageDataset]:
        """Return the datasets of the stage whose hashes are not in the file cache, which other processes read."""
        return [data for data in self._scanned if not data.holds_files and self.kind != "none"]

    def replace(self, name: str, data: ImageDataset) -> None:
        """Set the dataset of a split."""
        self.datasets[name] = data
        self._splits.pop(name, None)
        self._bad_rows.pop(name, None)

    @property
    def fit_splits(self) -> tuple[str, ...]:
        """The names of the splits of a fit."""
        return ("train", "validation") + (("test",) if self.datasets["test"] is not None else ())

    def split(self, name: str) -> Split:
        """Return the split ``train``, ``validation``, ``test`` or ``predict``."""
        if name not in self._splits:
            self._splits.update(self._make(name))
        return self._splits[name]

    def source(self, name: str) -> str:
        """Return the name of the dataset of a split: train for a validation split that was held out of it."""
        return "train" if name == "validation" and self.datasets[name] is None else name

    def _make(self, name: str) -> dict[str, Split]:
        if name == "predict":
            images = to_predict(required(self.datasets[name], name))
            check_paths(images, name)
            return {name: Split(images, labels=None)}
        if name == "test":
            return {name: self._whole(name)}
        if name == "train" and isinstance(stream := self.datasets[name], StreamImageDataset):
            return {name: Split(stream, labels=None)}
        fitting, has_own = self.stage == "fit", self.datasets["validation"] is not None
        if fitting and self.rules.train_on_validation:
            whole = self._unchanged(self._joined())
            return {"train": whole, "validation": whole.empty()}
        if name == "validation" and has_own:
            return {name: self._whole(name)}
        whole = self._unchanged(self._whole("train")) if fitting else self._whole("train")
        return {"train": whole} if has_own else self._hold_out(whole)

    def _whole(self, name: str) -> Split:
        return self._labelled(required(self.datasets[name], name), name, self._bad_rows.get(name, []))

    def _labelled(self, data: ImageDataset, name: str, bad: list[int]) -> Split:
        groups = self.rules.groups(data, required=name != "test")  # test may have another source, without groups
        split = Split(data, labels_of(data, self.class_names, name), None, groups, self.scan, self.kind)
        return split.without(bad)

    def _joined(self) -> Split:
        names = [name for name in ("train", "validation") if self.datasets[name] is not None]
        parts = [required(self.datasets[name], name) for name in names]
        starts = np.cumsum([0, *(len(part.samples) for part in parts)])
        bad = [int(first) + row for name, first in zip(names, starts, strict=False) for row in self._bad_rows[name]]
        return self._labelled(JoinedDataset(parts), " + ".join(names), bad)

    def _unchanged(self, whole: Split) -> Split:
        if self._recorded is not None:
            train_only = self.datasets["validation"] is not None and not self.rules.train_on_validation
            check_unchanged(whole, self._recorded, self._recorded_labels, ("train",) if train_only else RECORDED)
        return whole

    def _hold_out(self, whole: Split) -> dict[str, Split]:
        if self._recorded is not None:
            return recorded_hold_out(whole, self._recorded)
        splits = hold_out(whole, self.rules.share, self.rules.seed, self.rules.fold)
        if lost := splits["validation"].classes() - splits["train"].classes():
            log.warning("train: all images of %s are held out", self._names(lost))
        if absent := splits["train"].classes() - splits["validation"].classes():
            log.warning("validation has no image of %s: train has too few to hold one out", self._names(absent))
        return splits

    def _names(self, indices: set[int]) -> str:
        return listed([self.class_names[index] for index in sorted(indices)])

    def refuse_leaks(self) -> None:
        """Refuse, or warn of, images and groups of train in another split; once per run.

        Raises:
            ConfigError: Names some of them.
        """
        if self._leaks_checked:
            return
        held_out_of = {"validation": "train"} if self.datasets["validation"] is None else {}
        splits = {name: self.split(name) for name in self.fit_splits}
        refuse_leaks(splits, held_out_of, self.kind, self.rules.on_leak)
        if (seen := self._weights_record) is not None and self.kind != "none":
            for name in self.fit_splits[1:]:
                refuse_trained(name, splits[name], seen["split"], recorded_kind(seen), self.rules.on_leak)
        self._leaks_checked = True

    def refuse_trained(self, name: str) -> None:
        """Refuse, or warn of, an evaluation on images that the checkpoint was trained on.

        Raises:
            ConfigError: Gives their number and one of them.
        """
        if self.datasets[name] is None or self._recorded is None:  # held out of train
            return
        if compares_content(self.kind):
            split = self.split(name)
            self.trained_on[name] = refuse_trained(name, split, self._recorded, self.kind, self.rules.on_leak)

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint records: content hash and class of each sample by split, and the kind of hash."""
        splits = {name: self.split(name) for name in RECORDED}
        return {
            "content_hash": self.kind,
            "split": {name: split.fingerprints for name, split in splits.items()},
            "labels": {name: split.label_names for name, split in splits.items()},
        }

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Restore the splits of a checkpoint, so that no image changes sides."""
        if recorded_kind(record) != self.kind:  # hashes of different kinds never match
            self.kind = recorded_kind(record)
            self._splits.clear()
        made = {name: self._splits[name].fingerprints for name in RECORDED if name in self._splits}
        if any(contents != record["split"][name] for name, contents in made.items()):
            self._splits.clear()  # kept if they match, since some contents take long to read
        self._recorded = record["split"]
        self._recorded_labels = record.get("labels")  # missing in old checkpoints

    def set_weights_record(self, record: Mapping[str, Any]) -> None:
        """Set the record of the checkpoint whose weights a new run starts from."""
        self._weights_record = record


_TYPED = {
    "train": "fit PHOTOS",
    "validation": "validate RUN_FOLDER PHOTOS",
    "test": "test RUN_FOLDER PHOTOS",
    "predict": "predict RUN_FOLDER IMAGES",
}


def required(data: ImageDataset | None, name: str) -> ImageDataset:
    """Return a dataset that must be given.

    Raises:
        ConfigError: If it is not.
    """
    if data is None:
        other = ", --data.dataset_classes.train with the folder that it was held out of," * (name == "validation")
        raise ConfigError(
            f"no {name} data; type: imgcls {_TYPED[name]} (or give --data.dataset_classes.{name} FOLDER{other} or "
            "--config with the YAML of the run)"
        )
    return data
