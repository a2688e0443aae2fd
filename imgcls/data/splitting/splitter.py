"""The splits of a run: made of its datasets by rules that are written down, or as a checkpoint recorded them."""

import logging
from collections.abc import Mapping
from typing import Any, cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.data.config import KEY
from imgcls.data.loading.stream_batches import check_streams
from imgcls.data.scan.bad_images import BadImages
from imgcls.data.scan.files import HashKind
from imgcls.data.scan.samples import SampleScan
from imgcls.data.splitting.checkpoint_split import KNOWN, check_unchanged, recorded_hold_out, trained_on
from imgcls.data.splitting.config import Rules
from imgcls.data.splitting.leakage import find_conflicts, find_leaks
from imgcls.data.splitting.split import Split, check_paths, class_names_of, is_multilabel, labels_of, refuse_empty
from imgcls.data.splitting.train_val_split import hold_out
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.datasets.folder import to_predict
from imgcls.datasets.webdataset_stream import StreamImageDataset
from imgcls.errors import ConfigError, listed

log = logging.getLogger(__name__)

_LOOKED_AT = {"fit": ("train", "validation", "test"), "validate": ("train", "validation"), "test": ("test",)}
_USES = {"train": "train", "validation": "validate", "test": "test"}
_SHOWN = 3  # leaks, or images with two labels, that a message names


class Splitter:
    """The splits of a run.

    Args:
        datasets: The dataset of each split, None where there is none.
        rules: How train is divided where there is no validation dataset.
        bad_images: What happens to images that cannot be read.
        class_names: The classes in the order of the outputs; empty to take them from train.
    """

    def __init__(
        self, datasets: dict[str, ImageDataset | None], rules: Rules, bad_images: BadImages, class_names: list[str]
    ) -> None:
        self.datasets = datasets
        self.rules = rules
        self.bad_images = bad_images
        self.class_names = class_names
        if rules.fold is not None and datasets["validation"] is not None:
            raise ConfigError(
                f"{KEY}.fold: {rules.fold}, but dataset_classes.validation is given; leave out one of them"
            )
        if rules.fold is not None and rules.train_on_validation:
            raise ConfigError(f"{KEY}.fold: {rules.fold}, but train_on_validation: true; leave out one of them")
        check_streams(datasets, rules.train_on_validation)
        self.stage = ""
        self.multilabel = False
        self._looked_at: list[ImageDataset] = []
        self._bad_rows: dict[str, list[int]] = {}
        self._compared = False
        self._splits: dict[str, Split] = {}
        self.scan = SampleScan()
        self.kind: HashKind = rules.content_hash  # that of a checkpoint, where its split is kept
        self._recorded: dict[str, list[str]] | None = None
        self._recorded_labels: dict[str, list[str]] | None = None
        self._seen: Mapping[str, Any] | None = None

    def begin(self, stage: str) -> None:
        """Find the class list, the kind of labels, and the images that show by their headers that they cannot be read.

        Args:
            stage: Lightning's: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigError: If a dataset or the class list is missing, some datasets have one label an image and others
                several, or images cannot be read.
        """
        self._leave(stage)
        if stage != "validate" or self.datasets["train"] is None:  # of which validation may be held out
            needed = {"fit": "train", "validate": "validation"}.get(stage, stage)
            given(self.datasets[needed], needed)
        if not self.class_names and (train := self.datasets["train"]) is not None:
            self.class_names = class_names_of(train)
            self.multilabel = is_multilabel({"train": train})
        if not self.class_names and stage != "predict":
            raise ConfigError("no class list: give dataset_classes.train, class_names, or a checkpoint that holds one")
        names = _LOOKED_AT.get(stage, ())
        if stage == "validate" and self.datasets["validation"] is not None:
            names = ("validation",)
        looked_at = {name: data for name in names if (data := self.datasets[name]) is not None}
        if looked_at:
            self.multilabel = is_multilabel(looked_at)
        self._looked_at = list(looked_at.values())
        self._look(looked_at)

    def _leave(self, stage: str) -> None:
        """Go from one stage to another; a fit on train and validation has divided nothing, and has seen both."""
        if self.rules.train_on_validation and stage != self.stage:
            if self.stage == "fit" and "train" in self._splits:
                self.load_record(self.record())
            self._splits.clear()
        self.stage = stage

    def _look(self, datasets: Mapping[str, ImageDataset]) -> None:
        new = {name: data for name, data in datasets.items() if name not in self._bad_rows}
        for name, data in new.items():
            if name != "train":  # which may be a stream; one that is empty has no classes
                refuse_empty(data, name)
        found = {name: self.scan.unreadable(data) for name, data in new.items()}
        faults = {
            name: {str(new[name].samples["path"].iat[row]): reason for row, reason in reasons.items()}
            for name, reasons in found.items()
        }
        self.bad_images.add(faults, {name: len(data.samples) for name, data in new.items()})
        self._bad_rows |= {name: list(reasons) for name, reasons in found.items()}

    def reuse_datasets(self, other: "Splitter", names: list[str]) -> None:
        """Take some datasets of another run, and what is known of their samples: nobody looks at them again."""
        self.scan = other.scan
        for name in names:
            if not isinstance(other.datasets[name], StreamImageDataset):  # which goes on where it was
                self.datasets[name] = other.datasets[name]

    def uncached_datasets(self) -> list[ImageDataset]:
        """Return the datasets of the stage whose hashes no file remembers for other processes."""
        return [data for data in self._looked_at if not data.holds_files and self.kind != "none"]

    def replace(self, name: str, data: ImageDataset) -> None:
        """Set the dataset of a split."""
        self.datasets[name] = data
        self._splits.pop(name, None)
        self._bad_rows.pop(name, None)

    # -- splits

    def split(self, name: str) -> Split:
        """Return the split ``train``, ``validation``, ``test`` or ``predict``."""
        if name not in self._splits:
            self._splits.update(self._make(name))
        return self._splits[name]

    def source(self, name: str) -> str:
        """Return which dataset the samples of a split come from: train, where validation is held out of it."""
        return "train" if name == "validation" and self.datasets[name] is None else name

    def _make(self, name: str) -> dict[str, Split]:
        if name == "predict":
            images = to_predict(given(self.datasets[name], name))
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
        data = given(self.datasets[name], name)
        groups = self.rules.groups(data, needed=name != "test")  # test may come from elsewhere, without them
        split = Split(data, labels_of(data, self.class_names, name), None, groups, self.scan, self.kind)
        return split.without(self._bad_rows.get(name, []))

    def _joined(self) -> Split:
        names = [name for name in ("train", "validation") if self.datasets[name] is not None]
        parts = [given(self.datasets[name], name) for name in names]
        starts = np.cumsum([0, *(len(part.samples) for part in parts)])
        bad = [int(first) + row for name, first in zip(names, starts, strict=False) for row in self._bad_rows[name]]
        data = JoinedDataset(parts)
        labels = labels_of(data, self.class_names, " + ".join(names))
        return Split(data, labels, None, self._joined_groups(parts), self.scan, self.kind).without(bad)

    def _joined_groups(self, parts: list[ImageDataset]) -> NDArray[Any] | None:
        """The groups of all parts, as each has them by itself: their roots and columns may differ."""
        found = [self.rules.groups(part) for part in parts]
        if all(groups is None for groups in found):
            return None
        none = [np.full(len(part.samples), "", object) for part in parts]
        return np.concatenate([ours if groups is None else groups for groups, ours in zip(found, none, strict=True)])

    def _unchanged(self, whole: Split) -> Split:
        if self._recorded is not None:
            apart = self.datasets["validation"] is not None and not self.rules.train_on_validation
            check_unchanged(whole, self._recorded, self._recorded_labels, ("train",) if apart else KNOWN)
        return whole

    def _hold_out(self, whole: Split) -> dict[str, Split]:
        if self._recorded is not None:
            return recorded_hold_out(whole, self._recorded)
        splits = hold_out(whole, self.rules.share, self.rules.seed, self.rules.fold)
        if lost := splits["validation"].classes() - splits["train"].classes():
            log.warning("train: all images of %s are held out", self._named(lost))
        if unseen := splits["train"].classes() - splits["validation"].classes():
            log.warning("validation: too few images to hold one out of %s", self._named(unseen))
        return splits

    def _named(self, places: set[int]) -> str:
        return listed([self.class_names[place] for place in sorted(places)])

    # -- leaks

    def refuse_leaks(self) -> None:
        """Refuse, or say, that an image or a group of train stands in another split; say that one has two labels.

        Raises:
            ConfigError: Names some of them.
        """
        if self._compared:
            return
        names = ("train", "validation", "test") if self.datasets["test"] is not None else ("train", "validation")
        made_of_train = {"validation": "train"} if self.datasets["validation"] is None else {}
        by_content = self._compares()
        splits = {name: self.split(name) for name in names}
        if leaks := find_leaks(splits, made_of_train, by_content):
            self._leak(f"the same image or group is in two splits: {_pairs(leaks)}")
        if by_content and (conflicts := find_conflicts(splits.values())):
            log.warning("the same image has two labels: %s; `imgcls check` lists all", _pairs(conflicts))
        if by_content and (seen := self._seen) is not None:
            for name in names[1:]:
                self._refuse_seen(name, seen["split"], hash_kind(seen))
        self._compared = True

    def _compares(self) -> bool:
        """Whether images are compared; that they are not is said."""
        if self.kind == "none":
            log.info(
                "%s.content_hash: none: copies of an image, leaks between splits and images that a checkpoint was "
                "trained on are not looked for; the split is made, and kept, by path",
                KEY,
            )
        return self.kind != "none"

    def refuse_trained(self, name: str) -> None:
        """Refuse, or say, that a model is evaluated on images that it was trained on, as its checkpoint recorded.

        Raises:
            ConfigError: Counts them and names one.
        """
        if self.datasets[name] is None or self._recorded is None:  # held out of train
            return
        if self._compares():
            self._refuse_seen(name, self._recorded, self.kind)

    def _refuse_seen(self, name: str, record: dict[str, list[str]], kind: HashKind) -> None:
        split = self.split(name)
        if kind == "none":
            log.info("%s: the checkpoint holds no hash of the images that it was trained on", name)
            return
        paths = trained_on(split, record, kind)
        if paths:
            self._leak(
                f"{name}: the checkpoint was trained on {len(paths)} of these {len(split)} images, such as {paths[0]}"
            )

    def _leak(self, text: str) -> None:
        if self.rules.on_leak == "error":
            raise ConfigError(f"{text}; remove them from one side, or accept it: --data.on_leak warn")
        log.warning("%s", text)

    # -- records

    def summary(self) -> str:
        """Say in one line which classes there are, and how many images each split of a fit has."""
        names = ("train", "validation") + (("test",) if self.datasets["test"] is not None else ())
        counts = ", ".join(f"{self._count(name)} images to {_USES[name]}" for name in names)
        return f"{len(self.class_names)} classes ({listed(self.class_names)}): {counts}"

    def warn_missing_classes(self, name: str) -> None:
        """Say which classes a dataset lacks; of a part held out of train that was said."""
        joined = self.stage == "fit" and self.rules.train_on_validation and name == "validation"
        if self.datasets[name] is None or isinstance(self.datasets[name], StreamImageDataset) or joined:
            return
        present = self.split(name).classes()
        if name == "train" and self.datasets["validation"] is None:
            present |= self.split("validation").classes()
        missing = [label for place, label in enumerate(self.class_names) if place not in present]
        if missing:
            so = "none is learnt" if name == "train" else "means over the classes may count that as 0, or leave it out"
            log.warning("%s: no image of %s; %s", name, listed(missing), so)

    def _count(self, name: str) -> int:
        split = self.split(name)
        return split.data.length if isinstance(split.data, StreamImageDataset) else len(split)

    def table(self) -> pd.DataFrame:
        """One row for each sample of the splits of a fit: path, label, split, content (hash of the file or pixels)."""
        names = ("train", "validation") + (("test",) if self.datasets["test"] is not None else ())
        splits = {name: self.split(name) for name in names}
        contents = {name: "" if self.kind == "none" else part.fingerprints for name, part in splits.items()}
        tables = [part.table().assign(split=name, content=contents[name]) for name, part in splits.items()]
        return pd.concat(tables, ignore_index=True)

    def file_report(self) -> dict[str, Any]:
        """Account for every file: how many are used, and each that is not, with the reason."""
        bad = {path: reason for reasons in self.bad_images.found.values() for path, reason in reasons.items()}
        used = [data for name in _LOOKED_AT["fit"] if (data := self.datasets[name]) is not None]
        ignored = {path: rule for data in used for path, rule in data.ignored.items()}
        unused = [{"path": path, "reason": reason} for path, reason in (bad | ignored).items()]
        # texts, as a class of one's own may have Path objects; one by one, as pandas takes no names that are not UTF-8
        used_count = sum(str(path) not in bad for path in self.table()["path"])
        return {"used": used_count, "content_hash": self.kind, "unused": unused}

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps: content hash and class of each sample, by split, and the kind of the hashes."""
        splits = {name: self.split(name) for name in ("train", "validation")}
        return {
            "content_hash": self.kind,
            "split": {name: split.fingerprints for name, split in splits.items()},
            "labels": {name: split.label_names for name, split in splits.items()},
        }

    def set_weights_record(self, record: Mapping[str, Any]) -> None:
        """Know the images that the weights, with which a new run begins, were trained on."""
        self._seen = record

    def load_record(self, record: Mapping[str, Any]) -> None:
        """Keep to the splits of a checkpoint, so that no image changes sides."""
        if hash_kind(record) != self.kind:  # hashes of two kinds never fit
            self.kind = hash_kind(record)
            self._splits.clear()
        made = {name: self._splits[name].fingerprints for name in KNOWN if name in self._splits}
        if any(contents != record["split"][name] for name, contents in made.items()):
            self._splits.clear()  # and not where they are the same: some contents take long to be read
        self._recorded = record["split"]
        self._recorded_labels = record.get("labels")  # older checkpoints have none


def _pairs(found: list[tuple[str, str]]) -> str:
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(f"{one} and {other}" for one, other in found[:_SHOWN]) + more


def hash_kind(record: Mapping[str, Any]) -> HashKind:
    """Return of what the hashes of a checkpoint are; older ones do not say it.

    Raises:
        ConfigError: If it is none of those that are known.
    """
    kind = record.get("content_hash", "full")
    if kind not in get_args(HashKind):
        raise ConfigError(f"the checkpoint's content_hash is {kind!r}; it must be full, sampled or none")
    return cast("HashKind", kind)


def given(data: ImageDataset | None, name: str) -> ImageDataset:
    """Return a dataset that must be there.

    Raises:
        ConfigError: If it is not.
    """
    if data is None:
        before = "--images PATH, or " if name == "predict" else ""
        behind = "that of train, of which it was held out" if name == "validation" else "the key in the YAML"
        raise ConfigError(f"no {name} data: give {before}--data.dataset_classes.{name} FOLDER, or {behind}")
    return data
