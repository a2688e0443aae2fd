"""Images that cannot be read: an error that lists them, or a run that skips them with a warning for each."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from imgcls.data.config import KEY
from imgcls.errors import ConfigError, in_lines

log = logging.getLogger(__name__)

Policy = Literal["error", "skip"]

_REMEDY = "cannot be read; remove or replace them, or skip them: --data.on_bad_image skip"


@dataclass
class BadImages:
    """The unreadable images of a run.

    Args:
        policy: ``error`` ends the run with a list; ``skip`` skips them with a warning.
        limit: The share of a dataset that may be skipped, 0 to 1.
        found: Split -> path -> reason.
        totals: Split -> number of its images before any was skipped.
    """

    policy: Policy
    limit: float
    found: dict[str, dict[str, str]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, faults: Mapping[str, Mapping[str, str]], totals: Mapping[str, int]) -> None:
        """Add unreadable images, split -> path -> reason, and the number of images by split; each is reported once.

        Raises:
            ConfigError: If the policy is ``error``, or too many images of a split cannot be read.
        """
        new = [
            (split, path, reason)
            for split, reasons in faults.items()
            for path, reason in reasons.items()
            if path not in self.found.get(split, {})
        ]
        self.totals |= {split: max(total, self.totals.get(split, 0)) for split, total in totals.items()}
        if not new:
            return
        found = {split: self.found.get(split, {}) | dict(reasons) for split, reasons in faults.items() if reasons}
        counts = {split: (len(reasons), self.totals[split]) for split, reasons in found.items()}
        if self.policy == "error":
            lines = in_lines([": ".join(fault) for fault in new])
            raise ConfigError(f"images that cannot be read:{lines}\n{_counted(counts)} {_REMEDY}")
        for split, path, reason in new:
            log.warning("skipped in %s: %s: %s", split, path, reason)
        self._check_limit(counts)
        self.found |= found  # after the check, so that it fails again the next time

    def join(self, others: Iterable[Self]) -> None:
        """Merge the images that the processes of the run have found and reported.

        Raises:
            ConfigError: If too many images of a split cannot be read; all processes raise it.
        """
        for other in others:
            self.totals = other.totals | self.totals
            for split, reasons in other.found.items():
                self.found.setdefault(split, {}).update(reasons)
        self._check_limit({split: (len(reasons), self.totals[split]) for split, reasons in self.found.items()})

    def _check_limit(self, counts: Mapping[str, tuple[int, int]]) -> None:
        many = {split: (bad, total) for split, (bad, total) in counts.items() if bad > self.limit * total}
        if many:
            share = math.ceil(100 * max(bad / total for bad, total in many.values())) / 100
            raise ConfigError(
                f"{_counted(many)} cannot be read (limit {self.limit:.3g}: {KEY}.max_bad_fraction); "
                f"remove or replace them, or raise the limit: --data.max_bad_fraction {share:g}"
            )


def _counted(counts: Mapping[str, tuple[int, int]]) -> str:
    return ", ".join(f"{bad} of {total} images in {split}" for split, (bad, total) in counts.items() if bad)
