"""Predict images with transformers.pipeline, without imgcls: ``run_pipeline.py FOLDER --list FILE --output CSV``."""

import argparse
import csv

from transformers import pipeline


def main() -> None:
    """Write one row per path of the list, with the columns of ``imgcls predict``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--list", required=True)
    parser.add_argument("--output", required=True)
    arguments = parser.parse_args()
    classify = pipeline("image-classification", arguments.folder)
    names = [name for _, name in sorted(classify.model.config.id2label.items())]
    with open(arguments.list, encoding="utf-8", errors="surrogateescape") as file:
        paths = [path for path in file.read().split("\n") if path]
    with open(arguments.output, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "prediction", "probability", *(f"prob_{name}" for name in names), "error"])
        for path in paths:
            rows.writerow([path, *_row(classify, path, names)])


def _row(classify: pipeline, path: str, names: list[str]) -> list[object]:
    try:
        scores = {each["label"]: each["score"] for each in classify(path, top_k=len(names))}
    except (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, RuntimeError) as error:
        return ["", "", *("" for _ in names), f"{type(error).__name__}: {error}"]
    best = max(scores, key=scores.__getitem__)
    return [best, scores[best], *(scores[name] for name in names), ""]


if __name__ == "__main__":
    main()
