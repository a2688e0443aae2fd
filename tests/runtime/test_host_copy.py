"""Values of a batch are used when the next batch comes, or at the end."""

import torch

from imgcls.runtime.host_copy import Deferred


def test_values_are_used_one_batch_later_and_once() -> None:
    used: list[tuple[str, list[float]]] = []
    values = Deferred(lambda name, tensor: used.append((name, tensor.tolist())))
    values.flush()
    values.put("first", torch.ones(2))
    assert used == []
    values.put("second", torch.zeros(1))
    assert used == [("first", [1.0, 1.0])]
    for _ in range(2):
        values.flush()
    assert used == [("first", [1.0, 1.0]), ("second", [0.0])]
