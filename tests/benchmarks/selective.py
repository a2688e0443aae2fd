"""Label smoothing and selective prediction: do the least certain answers contain the errors?

``python -m tests.benchmarks.selective [FEATURES.npz ...]`` trains small networks on data sets of scikit-learn, and on
arrays ``x`` ``(N, D)`` and ``y`` ``(N,)`` of frozen features, with smoothing 0 and 0.1. It prints means over seeds on
images that chose neither epoch nor temperature, and the differences to smoothing 0 with their standard errors.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import nn

from imgcls.statistics.scores import log_loss
from imgcls.statistics.temperature import fit_temperature

SEEDS, EPOCHS, BATCH, WIDTH = 10, 30, 32, 64
Floats = NDArray[np.float64]


class Data(NamedTuple):
    """Features ``(N, D)`` and classes ``(N,)``."""

    x: Floats
    y: NDArray[np.int64]


def data_sets(files: list[str]) -> dict[str, Data]:
    """Return the data sets by name; pixels of digits also with noise, which makes errors."""
    digits, rng = load_digits(), np.random.default_rng(0)
    noisy = digits.data + rng.normal(0, 5, digits.data.shape)
    found = {"digits": Data(digits.data, digits.target), "noisy digits": Data(noisy, digits.target)}
    for name, each in (("breast cancer", load_breast_cancer()), ("wine", load_wine())):
        found[name] = Data(each.data, each.target)
    return found | {Path(file).stem: Data(*(np.load(file)[key] for key in "xy")) for file in files}


def aurc(scores: Floats, correct: NDArray[np.bool_]) -> float:
    """Return the area under the risk-coverage curve: the share of errors among the n most certain, mean over n."""
    wrong = ~correct[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def normalized(logits: Floats, power: float) -> Floats:
    """Return the largest of the centred logits divided by their p-norm (Cattelan and Silva 2024)."""
    centred = logits - logits.mean(axis=1, keepdims=True)
    return np.asarray(centred.max(axis=1) / np.linalg.norm(centred, ord=power, axis=1))


def trained(data: Data, smoothing: float, seed: int) -> dict[str, float]:
    """Train a network with one hidden layer on half of the data; return its scores on 30 %."""
    x_train, x_rest, y_train, y_rest = train_test_split(*data, train_size=0.5, stratify=data.y, random_state=seed)
    x_chosen, x_test, y_chosen, y_test = train_test_split(
        x_rest, y_rest, train_size=0.4, stratify=y_rest, random_state=seed
    )
    mean, std = x_train.mean(axis=0), x_train.std(axis=0) + 1e-6
    train, chosen, test = (
        torch.tensor(np.clip((each - mean) / std, -5, 5), dtype=torch.float32) for each in (x_train, x_chosen, x_test)
    )
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(train.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, int(data.y.max()) + 1))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    loss, targets = nn.CrossEntropyLoss(label_smoothing=smoothing), torch.tensor(y_train)
    best, kept = -1.0, (np.zeros(0), np.zeros(0))
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(train)), BATCH):
            optimizer.zero_grad()
            loss(network(train[rows]), targets[rows]).backward()
            optimizer.step()
        with torch.inference_mode():
            on_chosen, on_test = (network(each).double().numpy() for each in (chosen, test))
        if (accuracy := float((on_chosen.argmax(axis=1) == y_chosen).mean())) > best:
            best, kept = accuracy, (on_chosen, on_test)
    return scores(*kept, y_chosen, y_test)


def scores(
    on_chosen: Floats, on_test: Floats, y_chosen: NDArray[np.int64], y_test: NDArray[np.int64]
) -> dict[str, float]:
    """Return the scores of the chosen epoch on test, in percent; log loss in nats."""
    fitted = fit_temperature(on_chosen, y_chosen).values
    probs, correct = softmax(on_test / fitted, axis=1), on_test.argmax(axis=1) == y_test
    right = on_chosen.argmax(axis=1) == y_chosen
    power = min(range(1, 9), key=lambda each: aurc(normalized(on_chosen, each), right))
    return {
        "accuracy": 100 * correct.mean(),
        "AURC": 100 * aurc(probs.max(axis=1), correct),
        "AURC, normalised logits": 100 * aurc(normalized(on_test, power), correct),
        "log loss at T": log_loss(y_test, probs),
        "T": float(fitted),
    }


def main(files: list[str]) -> None:
    """Print a table of each data set."""
    for name, data in data_sets(files).items():
        found = {each: [trained(data, each, seed) for seed in range(SEEDS)] for each in (0.0, 0.1)}
        print(f"{name}, {len(data.y)} images, {SEEDS} seeds: smoothing 0, 0.1", flush=True)
        for key in found[0.0][0]:
            without, smoothed = (np.array([row[key] for row in rows]) for rows in found.values())
            print(f"  {key:24} {without.mean():8.3f} {smoothed.mean():8.3f}  {_mean(smoothed - without)}")
        for smoothing, rows in found.items():
            gain = np.array([row["AURC, normalised logits"] - row["AURC"] for row in rows])
            print(f"  AURC by normalising, smoothing {smoothing}: {_mean(gain)}")


def _mean(changes: Floats) -> str:
    """Return a mean over seeds and its standard error."""
    return f"{changes.mean():+.3f} +- {changes.std(ddof=1) / np.sqrt(len(changes)):.3f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
