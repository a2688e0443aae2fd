"""Connect model and data before a run: class names, weights of a checkpoint, and checks of both."""

import logging
from pathlib import Path

from imgcls.callbacks.terminate_on_nan import refuse_not_finite
from imgcls.checkpoints.content import data_state
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Parts
from imgcls.commands.resume import Start
from imgcls.commands.resume_checks import check_same_model
from imgcls.commands.trainer import is_first_process
from imgcls.config.overrides import value_at
from imgcls.data.datamodule import ImageDataModule
from imgcls.errors import ConfigError
from imgcls.models.classifier import ImageClassifier
from imgcls.models.huggingface.build import check_weights

log = logging.getLogger(__name__)


def set_up_new(model: ImageClassifier, data: ImageDataModule) -> None:
    """Set up the data and build the network for a run without a checkpoint.

    Raises:
        ConfigError: If data and model do not fit together, or the weights are not finite.
    """
    data.setup("fit")
    _refuse_leaks(data)
    model.build(data.class_names, None, data.multilabel, image_size=data.image_size)
    model.check_task("the data", data.multilabel)
    refuse_not_finite(f"model.init_args.model_name: {model.model_name}", model.state_dict())


def set_up_from_weights(model: ImageClassifier, data: ImageDataModule, start: Start) -> None:
    """Set up the data and load the weights alone: the rows of the head by class name, the rest as it is.

    Raises:
        ConfigError: If the checkpoint holds another architecture, was trained on images held out now, or is not finite.
    """
    check_same_model(start, model.model_name)
    data.setup("fit")
    if state := data_state(start.content):
        data.splitter.set_weights_record(state)
    _refuse_leaks(data)
    weights = start.content["state_dict"]
    model.build(data.class_names, start.record, data.multilabel, weights, data.image_size)
    model.check_task("the data", data.multilabel)
    model.load_weights(weights, start.record["class_names"])
    model.from_random = False
    refuse_not_finite(str(start.path), weights)


def set_up_resumed(model: ImageClassifier, data: ImageDataModule, start: Start) -> None:
    """Set up the data and build the network of a run to resume; Lightning loads the weights and the split later.

    Raises:
        ConfigError: If classes, architecture or parameter groups differ from the checkpoint's, or it is not finite.
    """
    check_same_model(start, model.model_name)
    if value_at(start.config, "experiment.only_weights_load"):
        model.from_random = False
    _keep_classes(data, start.path, start.record["class_names"])
    data.setup("fit")
    weights = start.content["state_dict"]
    model.build(data.class_names, start.record, None, weights, data.image_size)
    model.check_task("the data", data.multilabel)
    check_weights(model.state_dict(), weights)
    model.check_optimizers(start.content["optimizer_states"])
    refuse_not_finite(str(start.path), weights)


def set_up_evaluated(model: ImageClassifier, data: ImageDataModule, start: Start, recorded: Recorded) -> None:
    """Give the data classes, datasets and evaluation transforms of a checkpoint, and build its network without weights.

    Raises:
        ConfigError: If the record is invalid, or the weights are not those of its network.
    """
    data.class_names = list(start.record["class_names"])
    recorded.restore(data)
    weights = start.content["state_dict"]
    model.build(data.class_names, start.record, weights=weights, image_size=data.image_size)
    check_weights(model.state_dict(), weights)


def _refuse_leaks(data: ImageDataModule) -> None:
    """Look for duplicates across splits; images without a known hash are hashed by the first process alone."""
    if is_first_process() or not data.splitter.uncached_datasets():
        data.splitter.refuse_leaks()


def _keep_classes(data: ImageDataModule, path: Path, names: list[str]) -> None:
    if data.class_names not in ([], names):
        raise ConfigError(
            f"data.init_args.class_names: {data.class_names} differs from {names} in {path}. To resume, leave the key "
            "out; to start a new run from these weights, add --experiment.only_weights_load=true"
        )
    data.class_names = list(names)


def share_datasets(parts: Parts, base: Parts) -> None:
    """Reuse the datasets of the search that a trial configures alike, so that no trial scans its images again."""
    key = "data.init_args.dataset_classes"
    ours, theirs = (value_at(each.saved, key) or {} for each in (parts, base))
    parts.data.splitter.reuse_datasets(base.data.splitter, [name for name in ours if ours[name] == theirs.get(name)])


def warn_of_options(model: ImageClassifier, data: ImageDataModule, starts_new: bool) -> None:
    """Warn of combinations of options that are rarely intended."""
    if data.balanced_sampling and model.loss_config.class_weights == "auto":
        log.warning(
            "data.balanced_sampling: true and loss_config.class_weights: auto both compensate for rare classes, which "
            "count twice; use one of them"
        )
    if model.optimizer_config.layer_decay not in {None, 1} and model.block_count == 1:
        log.warning("optimizer_config.layer_decay has no effect: this network has no numbered blocks")
    if model.frozen_share.least == 1 and not model.pretrained and starts_new:
        log.warning("model.freeze_encoder: true with pretrained: false trains the head on random features")
