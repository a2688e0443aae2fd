"""What a checkpoint must look like: the type and size of every value that imgcls or Lightning takes from it."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, Json, ValidationError, model_validator

from imgcls.errors import ConfigError

Content = dict[str, Any]

CONFIG_KEY = "imgcls_config"
_DEEPEST = 20  # levels of dicts and lists
_MOST_VALUES = 1_000_000
_LARGEST = 2**53  # of whole numbers, which a float still holds
_LONGEST = 4096  # letters of a text, as of a path

_ABSENT: Any = None  # a default is not checked, a null in the file is
_CHANNELS = Field(min_length=3, max_length=3)
_Pixels = Annotated[int, Field(ge=1, le=2**14)]
_Count = Annotated[int, Field(ge=0, le=_LARGEST)]
_Share = Annotated[float, Field(ge=0, le=1)]


def _one_number(value: torch.Tensor) -> torch.Tensor:
    if value.numel() != 1:
        raise ValueError(f"a tensor of one number is expected, got {tuple(value.shape)}")
    return value


def _short(value: str) -> str:
    if len(value) > _LONGEST:
        raise ValueError(f"a text has at most {_LONGEST} letters, got {len(value)}")
    return value


_Text = Annotated[str, AfterValidator(_short)]  # pydantic's own max_length refuses names that are no UTF-8
_Score = Annotated[torch.Tensor, AfterValidator(_one_number)]


class _Shape(BaseModel, strict=True, arbitrary_types_allowed=True, protected_namespaces=()):
    """What a part of a checkpoint must look like; keys that are not named here may stand beside."""


class _Network(_Shape):
    model_type: _Text
    architectures: list[_Text] | None = None


class _Preprocessing(_Shape, extra="forbid"):
    size: Annotated[list[_Pixels], Field(min_length=2, max_length=2)]
    shortest_edge: _Pixels | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: Annotated[list[FiniteFloat], _CHANNELS]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], _CHANNELS]


class _Record(_Shape):
    model_name: _Text
    class_names: Annotated[list[_Text], Field(min_length=1)]
    network: _Network
    preprocessing: _Preprocessing
    precision: _Text | None = None
    multilabel: bool = False
    thresholds: list[_Share] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "_Record":
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names holds a name twice")
        if self.thresholds is not None and len(self.thresholds) != len(self.class_names):
            raise ValueError(f"thresholds: {len(self.thresholds)} for {len(self.class_names)} classes")
        return self


class _Hashes(_Shape):
    train: list[str]
    validation: list[str]


class _DataState(_Shape):
    class_names: list[_Text]
    eval: list[dict[str, Any]]
    split: _Hashes
    labels: _Hashes | None = None
    content_hash: Literal["full", "sampled", "none"] = "full"

    @model_validator(mode="after")
    def _fits(self) -> "_DataState":
        for name in ("train", "validation") if self.labels is not None else ():
            hashes, labels = getattr(self.split, name), getattr(self.labels, name)
            if len(hashes) != len(labels):
                raise ValueError(f"{len(labels)} labels for {len(hashes)} images of {name}")
        return self


class _Class(_Shape):
    class_path: _Text = ""
    init_args: dict[str, Any] | None = None


class _Optimizer(_Shape):
    lr: FiniteFloat | None = None


class _ModelArguments(_Shape):
    model_name: _Text | None = None
    optimizer_config: _Optimizer | None = None


class _Model(_Shape):
    class_path: _Text = ""
    init_args: _ModelArguments | None = None


class DataArguments(_Shape):
    """The arguments of the data that an evaluation takes over."""

    dataset_classes: dict[str, _Class | _Text | None] | None = None
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = _ABSENT
    validation_split: Annotated[float, Field(gt=0, lt=1)] = _ABSENT
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = _ABSENT
    on_bad_image: Literal["error", "skip"] = _ABSENT
    max_bad_fraction: _Share = _ABSENT
    on_leak: Literal["error", "warn"] = _ABSENT


class _Data(_Shape):
    class_path: _Text = ""
    init_args: DataArguments | None = None


class _Trainer(_Shape):
    callbacks: list[_Class] | _Class | None = None


class _Experiment(_Shape):
    only_weights_load: bool = False


class _Config(_Shape):
    seed_everything: Annotated[int, Field(ge=0, lt=2**32)] | bool | None = None
    ckpt_path: _Text | None = None
    model: _Model | None = None
    data: _Data | None = None
    trainer: _Trainer | None = None
    experiment: _Experiment | None = None


class _Pace(_Shape, extra="forbid"):
    steps: _Count
    images: _Count


class _Counts(_Shape):
    processed: _Count
    ready: _Count


class _Progress(_Shape):
    current: _Counts


class _FitLoop(_Shape):
    epoch_progress: _Progress


class _Loops(_Shape):
    fit_loop: _FitLoop


class _Group(_Shape):
    params: list[int]
    lr: float | torch.Tensor | None = _ABSENT  # which optimizers of the user's may lack


class _OptimizerState(_Shape):
    state: dict[int, dict[str, Any]] = _ABSENT  # Lightning's, where configure_optimizers returns none, is empty
    param_groups: list[_Group] = _ABSENT


# -- the states of callbacks


class _Averages(_Shape):
    latest_update_step: _Count


class _Row(_Shape, extra="allow"):
    __pydantic_extra__: dict[str, float] = Field(init=False)
    epoch: _Count
    step: _Count


class _History(_Shape):
    rows: list[_Row]


class _Saver(_Shape):
    monitor: _Text | None
    best_score: float | None
    best_epoch: _Count | None
    best_values: dict[str, float] = Field(default_factory=dict)
    last_is_best: bool = False


class _EarlyStopping(_Shape):
    wait_count: _Count
    stopped_epoch: _Count
    best_score: _Score
    patience: _Count
    stopping_reason: Annotated[int, Field(ge=0, le=3)] = 0
    stopping_reason_message: str | None = None


class _Timer(_Shape):
    time_elapsed: dict[str, FiniteFloat] = Field(default_factory=dict)


class _Metric(_Shape):
    spec: str
    state: dict[str, torch.Tensor | list[torch.Tensor]]


class _Metrics(_Shape):
    train: dict[str, _Metric] = _ABSENT


class _ModelCheckpoint(_Shape):
    best_model_score: _Score | None
    best_model_path: _Text
    current_score: _Score | None = None
    dirpath: _Text | None = None
    best_k_models: dict[str, _Score] = Field(default_factory=dict)
    kth_best_model_path: _Text = ""
    kth_value: _Score | None = None
    last_model_path: _Text = ""


_STATES: dict[str, type[_Shape]] = {
    "EMA": _Averages,
    "History": _History,
    "CheckpointSaver": _Saver,
    "EarlyStopping": _EarlyStopping,
    "MetricsLogger": _Metrics,
    "Timer": _Timer,
    "ModelCheckpoint": _ModelCheckpoint,
}


class _Content(_Shape):
    imgcls: _Record
    state_dict: dict[str, torch.Tensor]
    imgcls_config: Json[_Config] = _ABSENT
    pace: _Pace = _ABSENT
    ImageDataModule: _DataState = _ABSENT
    hyper_parameters: dict[str, Any] | None = None
    datamodule_hyper_parameters: DataArguments | None = None
    callbacks: dict[str, dict[str, Any]] | None = None
    current_model_state: dict[str, torch.Tensor] = _ABSENT
    averaging_state: dict[str, torch.Tensor] = _ABSENT
    optimizer_states: list[_OptimizerState] = _ABSENT
    lr_schedulers: list[dict[str, Any]] = _ABSENT
    version: Annotated[str, Field(alias="pytorch-lightning_version", pattern=r"^\d+\.\d+[\w.+-]*$", max_length=40)]
    epoch: _Count
    global_step: _Count
    loops: _Loops


def check_content(path: str | os.PathLike[str], content: object) -> None:
    """Refuse what is no checkpoint of imgcls, or has a value of another type or size than imgcls writes.

    Raises:
        ConfigError: Names the file, the key and what is expected.
    """
    _check(path, _Content, content)
    if not isinstance(content, dict):
        return
    for key in ("imgcls", "hyper_parameters", "datamodule_hyper_parameters", "callbacks", "loops"):
        _check_size(path, key, content.get(key))
    _check_size(path, CONFIG_KEY, json.loads(content.get(CONFIG_KEY) or "{}"))
    if state := data_state(content):
        _check(path, _DataState, state, "data")
        _check_size(path, "eval", state["eval"])
    for key, state in (content.get("callbacks") or {}).items():
        if (shape := _STATES.get(key.partition("{")[0])) is not None:
            _check(path, shape, state, "callbacks", key)
    _check_loops(path, content["loops"])


def data_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the datamodule put into a checkpoint, empty if it put nothing."""
    for value in content.values():
        if isinstance(value, dict) and {"class_names", "eval", "split"} <= value.keys():
            return value
    return {}


def _check(path: str | os.PathLike[str], shape: type[_Shape], value: object, *within: str) -> None:
    try:
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([*within, *(str(part) for part in first["loc"] if not _is_of_pydantic(str(part)))])
        reason = first["msg"].partition(" or instance of ")[0].removeprefix("Value error, ").lower()
        _refuse(path, place, reason)


def _is_of_pydantic(part: str) -> bool:
    """Whether a part of an error's place names a type of ours rather than a key."""
    return part.startswith("_") or "[" in part


def _refuse(path: str | os.PathLike[str], place: str, reason: str) -> None:
    what = f"{place}: {reason}" if place else reason
    raise ConfigError(f"{os.fspath(path)}: is not a checkpoint of imgcls: {what}")


def _check_size(path: str | os.PathLike[str], key: str, value: Any) -> None:
    """Refuse what would take long to walk through, or is no plain value."""
    for count, (depth, item) in enumerate(_walk(value), 1):
        if depth > _DEEPEST or count > _MOST_VALUES:
            _refuse(path, key, f"holds more than {_DEEPEST} levels or {_MOST_VALUES} values")
        if isinstance(item, int) and abs(item) > _LARGEST:
            _refuse(path, key, f"a whole number is at most 2**53, got one of {len(str(item))} digits")


def _walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Yield all values within a value, with the number of dicts and lists around each."""
    waiting = [(0, value)]
    while waiting:
        depth, item = waiting.pop()
        yield depth, item
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
        waiting += [(depth + 1, value) for value in inner]


def _check_loops(path: str | os.PathLike[str], loops: dict[str, Any]) -> None:
    """Refuse progress that is not counted in whole numbers."""
    for _, item in _walk(loops):
        for count in item.values() if isinstance(item, dict) and "ready" in item else ():
            if not isinstance(count, int) or count < 0:
                _refuse(path, "loops", f"a whole number from 0 is expected, got {count!r:.80}")
