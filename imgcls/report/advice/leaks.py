"""Evaluated images that are training images, too."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from imgcls.report.advice.finding import Advice, Finding, fit_again, p_value, percent
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.runtime.tables import counted

_SOURCES = {"test": ("train", "validation"), "validation": ("train",)}
"""Evaluated split -> splits by whose images the model was made."""


def leaked_images(run: Run) -> Iterator[Finding]:
    """Find evaluated images that are training images, by the hashes of their content.

    Copies in validation count for test, since validation chose the epoch. Copies that were saved again have another
    hash; ``imgcls check`` finds them.
    """
    for split in _SOURCES:
        evaluated = run.evaluation(split)
        if evaluated is None:
            continue
        copies = _copies(run, split)
        paths = [path for path in evaluated.paths if path in copies.index]
        if paths:
            yield Finding(_advice(run, evaluated, copies, paths), len(paths) / len(evaluated), urgency=0)


def _copies(run: Run, split: str) -> pd.DataFrame:
    """Return path and split of the image that an evaluated one equals; the index is the path of the latter.

    The path is empty in an evaluation of other data, which records the evaluated images alone.
    """
    if run.splits is None or run.is_of_other_data or (run.evaluation_record and run.folder == run.home):
        trained_on = run.evaluation_record.get("trained_on") or []
        return pd.DataFrame({"path": "", "split": "train"}, index=pd.Index(trained_on, dtype=object))
    known = run.splits[run.splits["content"] != ""]
    sources = known[known["split"].isin(_SOURCES[split])].drop_duplicates("content").set_index("content")
    held_out = known[(known["split"] == split) & known["content"].isin(sources.index)]
    return sources.loc[held_out["content"], ["path", "split"]].set_index(held_out["path"])


def _advice(run: Run, evaluated: EvaluatedSplit, copies: pd.DataFrame, paths: list[str]) -> Advice:
    count, example = len(paths), paths[0]
    where = " and ".join(name for name in _SOURCES[evaluated.split] if name in set(copies["split"]))
    source = copies["path"][example]
    action = (
        "Remove the copies from one side (`imgcls check` lists them, near copies, too), and train again: "
        f"{fit_again(run, '--data.on_leak error')}."
    )
    if run.is_of_other_data:
        action = "Remove these images from the evaluated ones, and evaluate the others."
    return Advice(
        "leak",
        f"{counted(count, 'image')} of {evaluated.split} ({percent(count / len(evaluated))}) also in {where}: the "
        "score is too good",
        f"Equal content, for example {example}{f' and {source}' if source else ''}. {_compared(evaluated, set(paths))}",
        action,
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
