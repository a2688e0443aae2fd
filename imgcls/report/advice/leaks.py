"""Evaluated images that are training images, too."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from imgcls.report.advice.finding import Advice, Finding, counted, fit_again, p_value, percent
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run

_KNOWN = {"test": ("train", "validation"), "validation": ("train",)}
"""Evaluated split -> splits by whose images the model was made."""


def leaked_images(run: Run) -> Iterator[Finding]:
    """Find evaluated images whose content hash is that of a training image, by ``splits.csv``.

    Copies in validation count for test, since validation chose the epoch. Copies that were saved again have another
    hash; ``imgcls check`` finds them.
    """
    for split in _KNOWN:
        evaluated = run.evaluation(split)
        if evaluated is None or run.splits is None:
            continue
        copies = _copies(run.splits, split)
        paths = [path for path in evaluated.paths if path in copies.index]
        if paths:
            yield Finding(_advice(run, copies, paths), len(paths) / len(evaluated), urgency=0)


def _copies(splits: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return path and split of the same image in train or validation; the index is the path of the evaluated image."""
    known = splits[splits["content"] != ""]
    sources = known[known["split"].isin(_KNOWN[split])].drop_duplicates("content").set_index("content")
    held_out = known[(known["split"] == split) & known["content"].isin(sources.index)]
    return sources.loc[held_out["content"], ["path", "split"]].set_index(held_out["path"])


def _advice(run: Run, copies: pd.DataFrame, paths: list[str]) -> Advice:
    evaluated, count, example = run.evaluated, len(paths), paths[0]
    where = " and ".join(name for name in _KNOWN[evaluated.split] if name in set(copies["split"]))
    return Advice(
        "leak",
        f"{counted(count, 'image')} of {evaluated.split} ({percent(count / len(evaluated))}) also in {where}: the "
        "score is too good",
        f"Equal content, for example {example} and {copies['path'][example]}. {_compared(evaluated, set(paths))}",
        "Remove the copies from one side (`imgcls check` lists them, near copies, too), and train again: "
        f"{fit_again(run, '--data.on_leak error')}.",
        paths,
    )


def _compared(evaluated: EvaluatedSplit, copied: set[str]) -> str:
    """Return the accuracy on the copies and on the other images."""
    from scipy.stats import fisher_exact  # takes half a second

    is_copy = np.array([path in copied for path in evaluated.paths])
    right, right_others = evaluated.correct[is_copy], evaluated.correct[~is_copy]
    if not len(right_others):
        return "There are no other images, so the accuracy on new ones is unknown."
    table = [[int(each.sum()), int((~each).sum())] for each in (right, right_others)]
    return (
        f"Right are {percent(right.mean())} of the copies, and {percent(right_others.mean())} of the other "
        f"{counted(len(right_others), 'image')}, which is the score without the leak "
        f"(Fisher's exact test of a difference: {p_value(fisher_exact(table).pvalue)})."
    )
