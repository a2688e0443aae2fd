"""Locate pretrained models in a local folder or on the Hub, with messages for what can go wrong."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import CONFIG_NAME, is_timm_available
from transformers.utils import logging as transformers_logging

from imgcls.errors import ConfigError, RunError, causes, first_line, similar_path
from imgcls.models.huggingface.hub_ids import KEY, local_or_hub

log = logging.getLogger(__name__)

DEFAULT_MODEL = "microsoft/resnet-18"

# image classifiers of transformers that cannot be used, and why
UNUSABLE = {
    "dinat": "needs natten, which imgcls does not support",
    "imagegpt": "takes colour clusters in place of pixels",
    "shieldgemma2": "needs a text beside the image",
    "siglip2": "takes patches in place of images; siglip takes images",
}
# keys of a config that select code, for example implementations in a kernel repository
OF_CODE = re.compile(r"implementation|^(use_kernels|kernel_config|auto_map|attribute_map|trust_remote_code)$")
# transformers 5 uses TensorFlow's keep probability as their classifier dropout; 0.999 would prevent training
_KEEP_PROBABILITY = ("mobilenet_v1", "mobilenet_v2")


def load_config(model_name: str) -> PreTrainedConfig:
    """Read the config of a Hub id or local folder.

    Raises:
        ConfigError: If there is none, or its architecture is not supported.
        RunError: If the Hub cannot be reached.
    """
    path = local_or_hub(model_name)
    check_reachable(model_name, CONFIG_NAME)
    try:
        config = _read_config(path)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        if isinstance(error, ImportError) and "timm" in str(error):
            require_timm("timm_wrapper", f"{KEY}: {model_name!r}")
        raise load_error(model_name, error) from error
    reason = UNUSABLE.get(config.model_type)
    if reason is None and type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        reason = "has no image classifier in transformers"
    if reason is not None:
        raise ConfigError(f"{KEY}: {model_name!r} cannot be used: its architecture {config.model_type} {reason}")
    require_timm(config.model_type, f"{KEY}: {model_name!r}")
    if config.model_type in _KEEP_PROBABILITY and config.classifier_dropout_prob > 0.5:
        config.classifier_dropout_prob = round(1 - config.classifier_dropout_prob, 6)
        log.info("%s: dropout %s, converted from a keep probability", model_name, config.classifier_dropout_prob)
    return config


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide transformers' progress bars and warnings, which our messages replace, during the block."""
    verbosity, has_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bars:
            transformers_logging.enable_progress_bar()


def require_timm(model_type: object, source: str) -> None:
    """Refuse a timm model if timm is not installed.

    Raises:
        ConfigError: Names ``source``.
    """
    if model_type == "timm_wrapper" and not is_timm_available():
        raise ConfigError(f"{source} is a timm model; install it with: pip install timm")


def _read_config(path: str) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except TypeError:  # timm's wrapper without a number of classes, which set_classes sets later
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, num_labels=2)
    given, _ = PreTrainedConfig.get_config_dict(path, local_files_only=True)  # cached by the call above
    plain = without_code(given)
    return config if plain == given else type(config).from_dict(plain)


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the keys of a config that select code."""
    kept = {key: value for key, value in config.items() if not OF_CODE.search(key)}
    return {key: without_code(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def check_reachable(model_name: str, file: str) -> None:
    """Refuse a model at once if the Hub cannot be reached, where huggingface_hub retries for half a minute.

    Also distinguishes that from a model without a file, for which transformers raises the same error.

    Raises:
        RunError: If the file of the model is not on this machine, and the Hub cannot be reached.
    """
    if os.path.isdir(local_or_hub(model_name)) or try_to_load_from_cache(model_name, file) is not None:
        return
    try:
        get_hf_file_metadata(hf_hub_url(model_name, file))
    except Exception as error:  # any other is raised again, and explained, when the file is read
        if _is_unreachable(error):
            raise load_error(model_name, error) from error


def load_error(model_name: str, error: Exception) -> ConfigError | RunError:
    """Return the error to raise for a model that cannot be loaded."""
    if os.path.isdir(os.path.expanduser(model_name)):
        return ConfigError(f"{KEY}: the folder {model_name!r} cannot be loaded: {first_line(error)}")
    near = similar_path(model_name)
    if _is_unreachable(error):
        which = " (the default model)" if model_name == DEFAULT_MODEL else ""
        where = f"there is no folder of this name in {os.getcwd()}, and the local cache does not have all of its files"
        reason = "the Hub cannot be reached; connect to the internet once, or give a folder"
        if is_offline_mode() and not any(map(_is_transport_error, causes(error))):
            reason = "HF_HUB_OFFLINE forbids to download it; unset it once, or give a folder"
        return RunError(
            f"{KEY}: {model_name!r}{which} cannot be loaded: {where}; {reason} (--model.model_name FOLDER){near}"
        )
    return ConfigError(f"{KEY}: {model_name!r} cannot be loaded: {first_line(error)}{near}")


def _is_unreachable(error: Exception) -> bool:
    return any(map(_is_connection_error, causes(error)))


def _is_connection_error(error: BaseException) -> bool:
    """Whether the Hub did not answer or has a server error.

    In offline mode transformers raises ``LocalEntryNotFoundError`` for a file, else ``ConnectionError``.
    """
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return _is_transport_error(error) or isinstance(error, (LocalEntryNotFoundError, ConnectionError, TimeoutError))


def _is_transport_error(error: BaseException) -> bool:
    # by name, because huggingface_hub's version decides between httpx and httpx2
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
