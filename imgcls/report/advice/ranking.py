"""Collect the findings of a run and put the most important first."""

from collections.abc import Callable, Iterable

from imgcls.report.advice.class_counts import few_images, missing_classes
from imgcls.report.advice.confusions import confused_pair
from imgcls.report.advice.finding import Advice, Finding
from imgcls.report.advice.label_errors import suspected_label_errors
from imgcls.report.advice.leaks import leaked_images
from imgcls.report.advice.segments import weak_segments
from imgcls.report.advice.shortcuts import shortcuts
from imgcls.report.advice.training_curves import limiting_encoder, overfitted, trained_too_short
from imgcls.results.run import Run

FINDERS: tuple[Callable[[Run], Iterable[Finding]], ...] = (
    leaked_images,
    shortcuts,
    trained_too_short,
    overfitted,
    few_images,
    missing_classes,
    suspected_label_errors,
    confused_pair,
    weak_segments,
    limiting_encoder,
)


def advise(run: Run) -> list[Advice]:
    """Return what limits a model, the most important first; empty if nothing was found.

    What makes the scores wrong comes first, then training that is not finished, then causes of errors, then where
    errors are; among these by the share of the score that is at stake.

    Args:
        run: The run folder.
    """
    found = [finding for finder in FINDERS for finding in finder(run)]
    return [each.advice for each in sorted(found, key=lambda each: (each.urgency, -each.gain))]
