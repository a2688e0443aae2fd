"""Make the paths of a configuration absolute, so that saved files can be used from any working directory."""

import os
from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace

from imgcls.config.overrides import public_class
from imgcls.datasets.split_folders import open_split_folders

# arguments that are paths, beside the root of any dataset class
_PATHS = {
    "imgcls.CsvImageDataset": ("csv",),
    "imgcls.ShardImageDataset": ("shards",),
    "imgcls.HubImageDataset": ("name",),
    "imgcls.StreamImageDataset": ("urls",),
}


def make_absolute(section: Namespace) -> None:
    """Make the paths of a parsed configuration absolute and the names of our classes short, in place.

    Folders that contain the folders of splits are replaced by these. A model or data class of the user may have other
    arguments than ours.
    """
    section["experiment.output_dir"] = _absolute(section["experiment.output_dir"])
    for key in ("model.class_path", "data.class_path"):
        section[key] = public_class(section[key])
    for key, is_path in (("model.init_args.model_name", os.path.isdir), ("data.init_args.cache_dir", _always)):
        if section.get(key) is not None:
            section[key] = _absolute(section[key], is_path)
    datasets = section.get("data.init_args.dataset_classes")
    for split, spec in vars(datasets).items() if datasets else ():
        # jsonargparse 4.53 reads a null on the command line as the text None where a class or a text is expected
        if spec == "None":
            datasets[split] = None
        elif isinstance(spec, str):
            datasets[split] = spec if spec.lstrip().startswith("{") else _absolute(spec)  # else it is refused later
        elif spec is not None:
            spec["class_path"] = public_class(spec["class_path"])
            arguments = spec.get("init_args") or Namespace()
            for key in [key for key, value in vars(arguments).items() if value == "None"]:
                arguments[key] = None
            make_arguments_absolute(spec["class_path"], arguments)
    for split, folder in open_split_folders(vars(datasets)).items() if datasets else ():
        datasets[split] = folder


def make_arguments_absolute(class_path: str, arguments: Any) -> None:
    """Make the paths among the arguments of a dataset class absolute, in place; a Hub dataset's name is not a path."""
    for key in ("root", *_PATHS.get(class_path, ())):
        given = arguments.get(key)
        is_path = {"name": os.path.exists, "urls": _is_local}.get(key, _always)
        if isinstance(given, list):
            arguments[key] = [_absolute(path, is_path) for path in given]
        elif isinstance(given, str):
            arguments[key] = _absolute(given, is_path)


def _always(_: str) -> bool:
    return True


def _is_local(url: str) -> bool:
    return ":" not in url  # http://…, file:…, pipe:…


def _absolute(path: str, is_path: Callable[[str], bool] = _always) -> str:
    expanded = os.path.expanduser(path)
    return os.path.abspath(expanded) if is_path(expanded) else path
