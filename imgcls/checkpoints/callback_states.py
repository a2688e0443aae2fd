"""Keep foreign paths out of the callback states of a checkpoint."""

import os
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint

_OF_FILES = ("path", "dir", "file")  # parts of the keys whose values are paths


def keep_own_paths(states: MutableMapping[str, Any], callbacks: Sequence[Callback]) -> None:
    """Replace the paths in callback states, which a run would write to or delete.

    A ModelCheckpoint that resumes in its own folder keeps the existing files of that folder; any other path is replaced
    by the callback's current value.

    Args:
        states: State key -> state of a callback; changed in place.
        callbacks: The callbacks of the run, after their setup.
    """
    for callback in callbacks:
        state, folder = states.get(callback.state_key), None
        if not isinstance(state, dict):
            continue
        if isinstance(callback, ModelCheckpoint):
            if callback.dirpath is not None and state.get("dirpath") == str(callback.dirpath):
                folder = str(callback.dirpath)
        elif type(callback).__module__.partition(".")[0] not in {"lightning", "imgcls"}:  # of the user
            continue
        states[callback.state_key] = _without_paths(state, callback.state_dict(), folder)


def _without_paths(state: Mapping[str, Any], own: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in state.items():
        if key == "best_k_models":
            kept[key] = {path: score for path, score in value.items() if _is_in(folder, path)}
        elif any(part in key for part in _OF_FILES):
            kept[key] = value if _is_in(folder, value) else own.get(key)
        else:
            kept[key] = value
    return kept


def _is_in(folder: str | None, path: Any) -> bool:
    """Whether a path is an existing file below a folder, in ModelCheckpoint's spelling and without links."""
    if folder is None or not isinstance(path, str):
        return False
    below = path.removeprefix(os.path.join(folder, ""))
    straight = os.path.join(os.path.realpath(folder), below)  # without ".." or links
    return below != path and os.path.realpath(path) == straight and os.path.isfile(path)
