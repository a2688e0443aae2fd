"""The rules by which a training set is divided."""

import os
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.data.config import KEY
from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.train_val_split import Fold
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.errors import ConfigError, did_you_mean

OnLeak = Literal["error", "warn"]


@dataclass(frozen=True)
class SplitRules:
    """How a training set is divided.

    Args:
        share: Share of the samples to hold out, 0 to 1.
        seed: Seed of the choice.
        fold: The fold of a cross-validation to hold out, instead of ``share``.
        group_column: Column of the samples that names the group; None for ``group`` if there is such a column.
        group_regex: Finds the group in the path below the root.
        on_leak: Whether an image or group in two splits is an error or a warning.
        train_on_validation: Whether to train on the validation images as well.
        content_hash: How content hashes are computed.
    """

    share: float
    seed: int
    fold: Fold | None
    group_column: str | None
    group_regex: str | None
    on_leak: OnLeak
    train_on_validation: bool
    content_hash: HashKind = "full"

    def __post_init__(self) -> None:
        column, regex = self.group_column, self.group_regex
        if column is not None and regex is not None:
            raise ConfigError(f"{KEY}: give group_column ({column!r}) or group_regex ({regex!r}), not both")
        try:
            re.compile(regex or "")
        except re.error as error:
            raise ConfigError(f"{KEY}.group_regex must be a regular expression, got {regex!r}: {error}") from error

    def groups(self, data: ImageDataset, required: bool = True) -> NDArray[Any] | None:
        """Return the group of each sample; None if there are no groups.

        Unless ``required``, a sample without the column or a match is a group by itself.

        Raises:
            ConfigError: If the column is missing, or the expression does not match a path.
        """
        if isinstance(data, JoinedDataset):  # the roots and columns of its parts may differ
            found = [(part, self.groups(part, required)) for part in data.parts]
            if all(groups is None for _, groups in found):
                return None
            joined = [np.full(len(part.samples), "", object) if groups is None else groups for part, groups in found]
            return np.concatenate(joined)
        if self.group_regex is not None:
            root = getattr(data, "root", None)
            return np.array([self._match(str(path), root, required) for path in data.samples["path"]], dtype=object)
        columns = list(data.samples.columns)
        if required and self.group_column is not None and self.group_column not in columns:
            hint = did_you_mean(self.group_column, columns) or f"; the columns are {', '.join(columns)}"
            raise ConfigError(f"{KEY}.group_column: the samples have no column {self.group_column!r}{hint}")
        column = self.group_column or "group"
        if column not in columns:
            return None
        named = zip(data.samples[column], data.samples["path"], strict=True)
        return np.array([_group(name, path) for name, path in named], object)

    def _match(self, path: str, root: str | None, required: bool) -> str:
        match = re.search(str(self.group_regex), os.path.relpath(path, root) if root else path)
        if match is None and required:
            raise ConfigError(f"{KEY}.group_regex: {self.group_regex!r} does not match {path!r}")
        name = match and (match[1] if match.re.groups else match[0])
        return f"path {path}" if name is None else str(name)  # also None if the bracket is optional and did not match


def _group(name: Any, path: object) -> str:
    """Return a group as text; a sample without one is a group by itself."""
    if pd.isna(name) or name == "":
        return f"path {path}"
    # pandas converts a column of whole numbers to floats if one is missing
    return str(int(name) if isinstance(name, (float, np.floating)) and name.is_integer() else name)
