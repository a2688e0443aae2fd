"""Advice, and a finding: advice with what it is ranked by."""

import shlex
from dataclasses import dataclass, field
from typing import Literal

from imgcls.results.run import CONFIG, Run
from imgcls.runtime.tables import short_path

CONFIDENCE = 0.95

Urgency = Literal[0, 1, 2, 3]
"""0: the scores do not mean what they seem to; 1: nothing else can be judged yet; 2: a cause of errors; 3: where errors
are, without a cause. Of equal urgency the larger gain comes first."""


@dataclass(frozen=True)
class Advice:
    """One thing that limits a model.

    Args:
        kind: A short name of the finding, for machines and tests, such as ``few_images``.
        title: What limits it, in one line.
        evidence: The figures that it follows from.
        action: What to do; what to type is between backticks.
        paths: Images that show it, the most telling first; may be empty.
    """

    kind: str
    title: str
    evidence: str
    action: str
    paths: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """Advice that was found, and its rank.

    Args:
        advice: The advice.
        gain: Share of the score at stake, 0 to 1: of the images, or of the mean recall of the classes.
        urgency: What comes first, whatever its gain.
    """

    advice: Advice
    gain: float
    urgency: Urgency = 2


def fit_again(run: Run, options: str) -> str:
    """Return the command that trains again with other options, between backticks."""
    return f"`imgcls fit {shlex.quote(short_path(run.home / CONFIG))} {options}`"


def percent(share: float) -> str:
    """Return a share as text: ``88.3 %``."""
    return f"{100 * share:.1f} %"


def p_value(value: float) -> str:
    """Return a p-value as text: ``p = 0.003``."""
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"
