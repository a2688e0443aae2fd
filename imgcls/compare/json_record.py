"""The comparison as JSON, for other programs."""

import math
from typing import Any

from imgcls.compare.comparison import Comparison, Configuration, Pair
from imgcls.compare.sentences import other_scores, remarks, verdict


def as_record(found: Comparison) -> dict[str, Any]:
    """Return the comparison as values of JSON; undefined numbers are null."""
    images = found.images
    return {
        "split": images.split,
        "images": len(images),
        "matched_by": images.by,
        "chose_epoch": images.chose_epoch,
        "configurations": [_configuration(found, each) for each in found.configurations],
        "settings": {row.key: row.values for row in found.settings},
        "pairs": [_pair(found, each) for each in found.pairs],
        "remarks": remarks(found),
    }


def _configuration(found: Comparison, each: Configuration) -> dict[str, Any]:
    others = [found.images.others[index] for index in each.runs]
    runs = [
        {"folder": folder, "seed": seed, "left_out": left}
        for folder, seed, left in zip(each.folders, each.seeds, others, strict=True)
    ]
    scores = {
        name: {
            "value": _finite(value.value),
            "interval": None if value.interval is None else [_finite(limit) for limit in value.interval],
            "of_runs": [_finite(of_run) for of_run in value.of_runs],
        }
        for name, value in each.values.items()
    }
    return {"name": each.name, "runs": runs, "scores": scores}


def _pair(found: Comparison, pair: Pair) -> dict[str, Any]:
    scores = {
        name: {
            "difference": _finite(each.value),
            "interval": [_finite(limit) for limit in each.interval],
            "p_value": _finite(each.p_value),
            "adjusted_p_value": _finite(pair.adjusted[name]),
        }
        for name, each in pair.differences.items()
    }
    return {
        "configurations": found.names(pair),
        "better": found.better(pair, found.metrics[0]),
        "verdict": verdict(found, pair),
        "other_scores": other_scores(found, pair),
        "images_needed": pair.needed,
        "correct_in_only_one": pair.only,
        "scores": scores,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
