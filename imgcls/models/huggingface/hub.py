"""Where pretrained models come from: a local folder or the Hub, and what is said when neither has one."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoConfig, PreTrainedConfig
from transformers.utils import cached_file, is_timm_available

from imgcls.errors import ConfigError, RunError, causes, first_line

log = logging.getLogger(__name__)

KEY = "model.init_args.model_name"

# architectures whose input is not an image as such
UNUSABLE = {
    "dinat": "needs natten, which imgcls does not support",
    "imagegpt": "takes colour clusters in place of pixels",
    "shieldgemma2": "needs a text beside the image",
    "siglip2": "takes patches in place of images; siglip takes images",
}
# transformers' default dropout of their classifier is TensorFlow's probability to keep: 0.999 would let nothing learn
_OF_CODE = re.compile(r"implementation|^(use_kernels|kernel_config|auto_map|attribute_map|trust_remote_code)$")
_KEEP_PROBABILITY = ("mobilenet_v1", "mobilenet_v2")


def load_config(model_name: str) -> PreTrainedConfig:
    """Read the config of a Hub id or local folder.

    Raises:
        ConfigError: If there is none, or imgcls cannot use it.
        RunError: If the Hub cannot be reached.
    """
    path = local_or_hub(model_name)
    try:
        config = _read_config(path)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        if isinstance(error, ImportError) and "timm" in str(error):
            require_timm("timm_wrapper", f"{KEY}: {model_name!r}")
        raise load_error(model_name, error) from error
    reason = UNUSABLE.get(config.model_type)
    if reason is None and type(config) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        reason = "is no image classifier in transformers"
    if reason is not None:
        raise ConfigError(f"{KEY}: {model_name!r} cannot be used: its architecture {config.model_type} {reason}")
    require_timm(config.model_type, f"{KEY}: {model_name!r}")
    if config.model_type in _KEEP_PROBABILITY and config.classifier_dropout_prob > 0.5:
        config.classifier_dropout_prob = round(1 - config.classifier_dropout_prob, 6)
        log.info("%s: dropout %s, from the probability to keep", model_name, config.classifier_dropout_prob)
    return config


def require_timm(model_type: object, source: str) -> None:
    """Refuse a network of timm where timm is not installed.

    Raises:
        ConfigError: Names ``source``.
    """
    if model_type == "timm_wrapper" and not is_timm_available():
        raise ConfigError(f"{source} is a network of timm, which is not installed; type: pip install timm")


def _read_config(path: str) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except TypeError:  # timm's wrapper, where the file does not say how many classes; set_classes does later
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, num_labels=2)
    given, _ = PreTrainedConfig.get_config_dict(path, local_files_only=True)  # which has just been fetched
    plain = without_code(given)
    return config if plain == given else type(config).from_dict(plain)


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a config what names code: how layers compute, which a repository of kernels may say."""
    kept = {key: value for key, value in config.items() if not _OF_CODE.search(key)}
    return {key: without_code(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def local_or_hub(model_name: str) -> str:
    """Return the folder or the Hub id; refuse what looks like a path and is none.

    Raises:
        ConfigError: If a folder is meant and does not exist or holds no ``config.json``.
    """
    path = Path(model_name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"{KEY}: the folder {model_name!r} holds no config.json")
        return str(path)
    if model_name.startswith((".", "/", "~")) or model_name.count("/") > 1 or path.exists():
        raise ConfigError(
            f"{KEY}: no folder {model_name!r}; give a folder with config.json, or a Hub id such as microsoft/resnet-18"
        )
    return model_name


def check_reachable(model_name: str, file: str) -> None:
    """Tell a model that lacks a file from a Hub that cannot be asked, for which the error is the same.

    Raises:
        RunError: If the Hub cannot be reached.
    """
    if os.path.isdir(local_or_hub(model_name)) or try_to_load_from_cache(model_name, file) is not None:
        return
    try:
        cached_file(model_name, file)
    except Exception as error:
        if _is_unreachable(error):
            raise load_error(model_name, error) from error
        if not isinstance(error, OSError):
            raise


def load_error(model_name: str, error: Exception) -> ConfigError | RunError:
    """Return the error to raise where a model cannot be loaded."""
    if os.path.isdir(os.path.expanduser(model_name)):
        return ConfigError(f"{KEY}: the folder {model_name!r} cannot be loaded: {first_line(error)}")
    if _is_unreachable(error):
        return RunError(
            f"{KEY}: there is no folder {model_name!r} in the working directory {os.getcwd()}, the local cache lacks "
            "files of that model, and the Hub cannot be reached; connect once, or give a folder"
        )
    return ConfigError(f"{KEY}: {model_name!r} cannot be loaded: {first_line(error)}")


def _is_unreachable(error: Exception) -> bool:
    return any(map(_is_of_the_connection, causes(error)))


def _is_of_the_connection(error: BaseException) -> bool:
    """Whether an error says that nobody answered, or that the Hub is out of order.

    Offline mode is a ``LocalEntryNotFoundError`` where transformers looks for a file, else a ``ConnectionError``.
    """
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    # of httpx, or httpx2, as huggingface_hub's version has it: so by name
    of_transport = any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
    return of_transport or isinstance(error, (LocalEntryNotFoundError, ConnectionError, TimeoutError))
