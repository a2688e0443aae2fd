"""Pydantic models of a checkpoint: the type and size of every value that imgcls or Lightning reads from it."""

from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, Json, model_validator

LARGEST = 2**53  # of integers, which float64 represents exactly
_LONGEST = 4096  # characters of a string, for example a path

_ABSENT: Any = None  # defaults are not validated, a null in the file is
_CHANNELS = Field(min_length=3, max_length=3)
_Pixels = Annotated[int, Field(ge=1, le=2**14)]
_Count = Annotated[int, Field(ge=0, le=LARGEST)]
_Share = Annotated[float, Field(ge=0, le=1)]


def _one_number(value: torch.Tensor) -> torch.Tensor:
    if value.numel() != 1:
        raise ValueError(f"must be a tensor of one number, got shape {tuple(value.shape)}")
    return value


def _short(value: str) -> str:
    if len(value) > _LONGEST:
        raise ValueError(f"must have at most {_LONGEST} characters, got {len(value)}")
    return value


_Text = Annotated[str, AfterValidator(_short)]  # pydantic's max_length refuses strings that are not UTF-8


def _probabilities(value: torch.Tensor) -> torch.Tensor:
    if value.ndim != 1 or value.dtype != torch.float32 or not ((value >= 0) & (value <= 1)).all():
        raise ValueError("must be a row of float32 probabilities")
    return value


def _flags(value: torch.Tensor) -> torch.Tensor:
    if value.ndim != 1 or value.dtype != torch.bool:
        raise ValueError("must be a row of bool")
    return value


_Scores = Annotated[torch.Tensor, AfterValidator(_probabilities)]
_Flags = Annotated[torch.Tensor, AfterValidator(_flags)]
_Score = Annotated[torch.Tensor, AfterValidator(_one_number)]


class Strict(BaseModel, strict=True, arbitrary_types_allowed=True, protected_namespaces=()):
    """Base of the models: strict types; unknown keys are allowed and ignored."""


class _Network(Strict):
    model_type: _Text
    architectures: list[_Text] | None = None


class _Preprocessing(Strict, extra="forbid"):
    size: Annotated[list[_Pixels], Field(min_length=2, max_length=2)]
    shortest_edge: _Pixels | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: Annotated[list[FiniteFloat], _CHANNELS]
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], _CHANNELS]
    kernel: Literal["opencv", "torchvision", "pillow"] = "opencv"


class _Record(Strict):
    model_name: _Text
    class_names: Annotated[list[_Text], Field(min_length=1)]
    network: _Network
    preprocessing: _Preprocessing
    precision: _Text | None = None
    multilabel: bool = False
    thresholds: list[_Share] | None = None

    @model_validator(mode="after")
    def _check(self) -> "_Record":
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names contains a name twice")
        if self.thresholds is not None and len(self.thresholds) != len(self.class_names):
            raise ValueError(f"got {len(self.thresholds)} thresholds for {len(self.class_names)} classes")
        return self


class _Hashes(Strict):
    train: list[str]
    validation: list[str]


class DataState(Strict):
    """The state of the data module."""

    class_names: list[_Text]
    eval: list[dict[str, Any]]
    split: _Hashes
    labels: _Hashes | None = None
    content_hash: Literal["full", "sampled", "none"] = "full"
    decode: Literal["exact", "scaled"] = "exact"
    create_dataset: bool = _ABSENT

    @model_validator(mode="after")
    def _check(self) -> "DataState":
        for name in ("train", "validation") if self.labels is not None else ():
            hashes, labels = getattr(self.split, name), getattr(self.labels, name)
            if len(hashes) != len(labels):
                raise ValueError(f"got {len(labels)} labels for {len(hashes)} images of {name}")
        return self


class _Class(Strict):
    class_path: _Text = ""
    init_args: dict[str, Any] | None = None


class _Optimizer(Strict):
    lr: FiniteFloat | None = None


class _ModelArguments(Strict):
    model_name: _Text | None = None
    optimizer_config: _Optimizer | None = None


class _Model(Strict):
    class_path: _Text = ""
    init_args: _ModelArguments | None = None


class DataArguments(Strict):
    """Arguments of the data module that an evaluation uses."""

    dataset_classes: dict[str, _Class | _Text | None] | None = None
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = _ABSENT
    validation_split: Annotated[float, Field(gt=0, lt=1)] = _ABSENT
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = _ABSENT
    on_bad_image: Literal["error", "skip"] = _ABSENT
    max_bad_fraction: _Share = _ABSENT
    on_leak: Literal["error", "warn"] = _ABSENT


class _Data(Strict):
    class_path: _Text = ""
    init_args: DataArguments | None = None


class _Trainer(Strict):
    callbacks: list[_Class] | _Class | None = None


class _Experiment(Strict):
    only_weights_load: bool = False


class _Config(Strict):
    seed_everything: Annotated[int, Field(ge=0, lt=2**32)] | bool | None = None
    ckpt_path: _Text | None = None
    model: _Model | None = None
    data: _Data | None = None
    trainer: _Trainer | None = None
    experiment: _Experiment | None = None


class _EpochLength(Strict, extra="forbid"):
    steps: _Count
    images: _Count


class _Counts(Strict):
    processed: _Count
    ready: _Count


class _Progress(Strict):
    current: _Counts


class _FitLoop(Strict):
    epoch_progress: _Progress


class _Loops(Strict):
    fit_loop: _FitLoop


class _Group(Strict):
    params: list[int]
    lr: float | torch.Tensor | None = _ABSENT  # absent in some optimizers of users


class _OptimizerState(Strict):
    # both absent if ``configure_optimizers`` returns None
    state: dict[int, dict[str, Any]] = _ABSENT
    param_groups: list[_Group] = _ABSENT


# -- states of callbacks


class _Averages(Strict):
    latest_update_step: _Count


class _Row(Strict, extra="allow"):
    __pydantic_extra__: dict[str, float] = Field(init=False)
    epoch: _Count
    step: _Count


class _History(Strict):
    rows: list[_Row]


class _Saver(Strict):
    monitor: _Text | None
    best_score: float | None
    best_epoch: _Count | None
    best_values: dict[str, float] = Field(default_factory=dict)
    last_is_best: bool = False


class _EarlyStopping(Strict):
    wait_count: _Count
    stopped_epoch: _Count
    best_score: _Score
    patience: _Count
    stopping_reason: Annotated[int, Field(ge=0, le=3)] = 0
    stopping_reason_message: str | None = None


class _Timer(Strict):
    time_elapsed: dict[str, FiniteFloat] = Field(default_factory=dict)


class _Metric(Strict):
    spec: str
    state: dict[str, torch.Tensor | list[torch.Tensor]]


class _Metrics(Strict):
    train: dict[str, _Metric] = _ABSENT


class _ModelCheckpoint(Strict):
    best_model_score: _Score | None
    best_model_path: _Text
    current_score: _Score | None = None
    dirpath: _Text | None = None
    best_k_models: dict[str, _Score] = Field(default_factory=dict)
    kth_best_model_path: _Text = ""
    kth_value: _Score | None = None
    last_model_path: _Text = ""


CALLBACK_STATES: dict[str, type[Strict]] = {
    "EMA": _Averages,
    "History": _History,
    "CheckpointSaver": _Saver,
    "EarlyStopping": _EarlyStopping,
    "MetricsLogger": _Metrics,
    "Timer": _Timer,
    "ModelCheckpoint": _ModelCheckpoint,
}


class _Calibration(Strict):
    split: _Text
    images: _Count
    confidence: _Scores = _ABSENT
    correct: _Flags = _ABSENT
    of_truth: _Scores = _ABSENT

    @model_validator(mode="after")
    def _check(self) -> "_Calibration":
        if len({None if each is None else len(each) for each in (self.confidence, self.correct, self.of_truth)}) > 1:
            raise ValueError("confidence, correct and of_truth must have as many images")
        return self


class CheckpointContent(Strict):
    """A checkpoint."""

    imgcls: _Record
    state_dict: dict[str, torch.Tensor]
    imgcls_config: Json[_Config] = _ABSENT
    pace: _EpochLength = _ABSENT
    ImageDataModule: DataState = _ABSENT
    hyper_parameters: dict[str, Any] | None = None
    datamodule_hyper_parameters: DataArguments | None = None
    callbacks: dict[str, dict[str, Any]] | None = None
    current_model_state: dict[str, torch.Tensor] = _ABSENT
    averaging_state: dict[str, torch.Tensor] = _ABSENT
    optimizer_states: list[_OptimizerState] = _ABSENT
    lr_schedulers: list[dict[str, Any]] = _ABSENT
    calibration: _Calibration = _ABSENT
    version: Annotated[str, Field(alias="pytorch-lightning_version", pattern=r"^\d+\.\d+[\w.+-]*$", max_length=40)]
    epoch: _Count
    global_step: _Count
    loops: _Loops
