"""Train on a folder of photos and list the worst mistakes: python python_api.py PHOTOS [EPOCHS]."""

import sys

import pandas as pd

import imgcls


def main(photos: str, epochs: int = 20) -> None:
    """Train, then print the validation images that were wrong with the highest probability."""
    result = imgcls.fit(data=photos, trainer={"max_epochs": epochs})
    print(result)
    rows = pd.read_csv(f"{result.run_folder}/validation_predictions.csv")
    wrong = rows[rows["label"] != rows["prediction"]].nlargest(10, "probability")
    print(wrong[["path", "label", "prediction", "probability"]].to_string(index=False))
    # one of them again, from its file
    for path in wrong["path"].head(1):
        print(result.classifier.predict(path).T)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
