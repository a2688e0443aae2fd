"""Positional arguments: folders, files and run folders, and the options that they are meant for."""

import os
import shlex
from pathlib import Path

from imgcls.cli.argv import CKPT_PATH, COMMANDS, IMAGES, OF_TRAINED, Option, join_options, short_key, split_options
from imgcls.cli.schema import keys
from imgcls.errors import ConfigError, listed, similar_path

TRAIN = "--data.dataset_classes.train"
FOLDERS = {  # command -> the option that a folder is meant for
    "fit": TRAIN,
    "tune": TRAIN,
    "validate": "--data.dataset_classes.validation",
    "test": "--data.dataset_classes.test",
    "predict": IMAGES,
    "check": IMAGES,
    "export": IMAGES,
    "explain": IMAGES,
}
CONFIGS = (".yaml", ".yml")
_RUNS, _NAME = "--experiment.output_dir", "--experiment.custom_folder_name"
_TABLES = (".csv", ".tsv", ".txt")
_LAST = "last"  # the newest run
_SHOWN = 3  # words that a line names
_EXPORTED = "export.json"
_WEIGHTS = {"model.safetensors", "pytorch_model.bin"}
_BEST = ("checkpoints/best.ckpt", "best.ckpt")  # in the folder of a run, a search or checkpoints


def expand(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Write the options before words that have none, and the checkpoints in place of run folders.

    Args:
        arguments: The command line after the program's name.

    Returns:
        The command line with all options, and lines that say how words were read.

    Raises:
        ConfigError: If a word can be read in no way, or in several.
    """
    command = arguments[0]
    if command not in COMMANDS:
        return arguments, []
    given = split_options(arguments)
    found: list[Option] = []
    read: dict[str, list[str]] = {}  # as what words were read -> these words
    folders = _option_of_folders(command, given)
    for name, values in given:
        option = name, values
        if not name:
            option = _option_of(arguments, values[0], folders)
        elif len(name) == 2 and name not in {"-c", "-h"}:  # as other programs have it: -b 32
            option = f"-{name}", values
        elif name == CKPT_PATH and command in OF_TRAINED and values:
            _refuse_folder_of_runs(values[0])
            _refuse_exported(values[0], arguments)
            option = name, [_best_in(values[0]) or values[0]]
        if option != (name, values) and values:
            text = option[0] if option[1] == values else shlex.join(join_options([option]))
            read.setdefault(text, []).append(values[0])
        found.append(option)
    if words := [values[0] for name, values in given if not name]:
        _refuse_two(command, found)
        _refuse_config_among_images(command, words)
    return join_options(found), _notes(command, read)


def _option_of_folders(command: str, given: list[Option]) -> str:
    """Return the option that a folder is meant for; beside other splits, ``check`` reads it as train."""
    keys_given = {short_key(name) for name, _ in given if name}
    has_splits = any(key.startswith("data.dataset_classes") for key in keys_given)
    return TRAIN if command == "check" and has_splits and IMAGES[2:] not in keys_given else FOLDERS[command]


def _notes(command: str, read: dict[str, list[str]]) -> list[str]:
    """Return a line for each option that says which words were read as it."""
    notes = []
    for text, words in read.items():
        more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        notes.append(f"Reading {', '.join(map(shlex.quote, words[:_SHOWN]))}{more} as {text}")
    folders = read.get(IMAGES, [])
    if command == "check" and len(folders) == 2:
        first, second = map(shlex.quote, folders)
        test = f"imgcls check {first} --data.dataset_classes.test {second}"
        notes.append(f"Leaks are found only between splits; to check {second} as the test images, type: {test}")
    return notes


def _option_of(arguments: list[str], word: str, folders: str) -> Option:
    """Return the option that a word without one is meant for."""
    command = arguments[0]
    path = os.path.expanduser(word)
    suffix = os.path.splitext(word)[1].lower()
    if os.path.isdir(path):
        return _option_of_folder(arguments, word, folders)
    if suffix in CONFIGS:
        return "--config", [word]
    if not os.path.exists(path):
        if word == _LAST and command in ("fit", *OF_TRAINED):
            return CKPT_PATH, [word]
        name, is_pair, value = word.partition("=")
        if is_pair and name.replace(".", "_").isidentifier():  # as other programs have it: epochs=3
            return f"--{name}", [value]
        is_path = os.sep in word or "." in word
        near = similar_path(word) or "; a value follows its option, one with spaces in quotes" * (not is_path)
        raise ConfigError(f"{word!r}: no such file or folder{near}")
    if suffix == ".ckpt" and command in ("fit", *OF_TRAINED):
        return CKPT_PATH, [word]
    takes_files = command in {"predict", "export", "explain"}  # others name another option
    if takes_files or (suffix in _TABLES and command != "check"):
        return FOLDERS[command], [word]
    taken = "folders of images and .yaml files" + ", and .ckpt files" * (command in ("fit", *OF_TRAINED))
    raise ConfigError(f"{word!r} belongs to no option; without an option, {command} takes {taken}")


def _option_of_folder(arguments: list[str], folder: str, option: str) -> Option:
    command = arguments[0]
    best = _best_in(folder)
    if command in ("fit", *OF_TRAINED):
        _refuse_folder_of_runs(folder)
        _refuse_exported(folder, arguments)
    if best is None and command in OF_TRAINED:
        _refuse_network(folder)
    if best is None or command in ("check", "tune"):
        return option, [folder]
    if command in OF_TRAINED:
        return CKPT_PATH, [best]
    config, last = (shlex.quote(os.path.join(folder, name)) for name in ("config.yaml", "checkpoints/last.ckpt"))
    raise ConfigError(
        f"{folder!r} is the folder of a run; to resume it, type: imgcls fit {config} {last}; to train on its "
        f"configuration again: imgcls fit {config}"
    )


def _refuse_folder_of_runs(folder: str) -> None:
    """Refuse a folder that holds run folders; images have other names."""
    place = os.path.expanduser(folder)
    found = (Path(place).glob(f"{level}version_*/{_BEST[0]}") for level in ("", "*/") if os.path.isdir(place))
    files = [file for each in found for file in each]
    if files:
        newest = max(files, key=lambda file: file.stat().st_mtime_ns).parents[1]
        raise ConfigError(f"{folder!r} contains run folders; did you mean {str(newest)!r}?")


def _refuse_exported(folder: str, arguments: list[str]) -> None:
    """Refuse a folder that ``imgcls export`` has written, as a word of a command line."""
    path = os.path.expanduser(folder)
    if not os.path.isfile(os.path.join(path, _EXPORTED)):
        return
    from imgcls.checkpoints.run_folder import run_of_export

    run = run_of_export(Path(path))
    words = [str(run) if word == folder else word for word in arguments]
    instead = f"; type: imgcls {shlex.join(words)}" if run and arguments[0] in OF_TRAINED else ""
    raise ConfigError(
        f"{folder!r} is an exported model, for other programs; its README.md shows how to use it. imgcls reads the "
        f"run folder that it was exported from{instead}"
    )


def _refuse_network(folder: str) -> None:
    """Refuse the folder of a pretrained network, as transformers writes it."""
    names = set(os.listdir(os.path.expanduser(folder)))
    if "config.json" in names and names & _WEIGHTS:
        raise ConfigError(
            f"{folder!r} is a pretrained network and not a run; to train a classifier from it, type: "
            f"imgcls fit PHOTOS --model.model_name {shlex.quote(folder)}; a run is, for example, runs/NAME/version_0"
        )


def _best_in(folder: str) -> str | None:
    """Return the best checkpoint in the folder of a run, a search or checkpoints; None for any other path."""
    files = (os.path.join(os.path.expanduser(folder), name) for name in _BEST)
    return next(filter(os.path.isfile, files), None)


def _refuse_two(command: str, options: list[Option]) -> None:
    """Refuse two checkpoints, and two folders where one is taken."""
    for name, kind in ((CKPT_PATH, "checkpoints"), (_option_of_folders(command, options), "folders")):
        values = [value for other, texts in options if short_key(other) == short_key(name) for value in texts]
        if len(values) > 1 and name != IMAGES:
            second = f"; for the second: --data.dataset_classes.validation {shlex.quote(values[1])}" * (name == TRAIN)
            parents = {os.path.dirname(os.path.normpath(value)) for value in values}
            if len(values) > 2 and len(parents) == 1:  # as the shell expands photos/*
                second = f"; for the folder that they are in: imgcls {command} {shlex.quote(parents.pop() or '.')}"
            raise ConfigError(f"{command} takes one of the {kind} {listed(values)} as {name}{second}")


def _refuse_config_among_images(command: str, words: list[str]) -> None:
    """Refuse a configuration that may be a file of a folder of images (``photos/*``): it can name classes to import."""
    configs = [word for word in words if word.lower().endswith(CONFIGS) and not os.path.isdir(word)]
    if configs and (command in OF_TRAINED or (command == "check" and words != configs)):
        raise ConfigError(f"{configs[0]!r} is not an image; if it is the configuration, type --config {configs[0]}")


def add_newest_run(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Add the configuration of the newest run to ``fit --ckpt_path last`` that gives neither data nor a configuration.

    Args:
        arguments: The command line with all options.

    Returns:
        The command line, and the line that says which run it is.

    Raises:
        ConfigError: If there is none; names what is there.
    """
    (command, _), *options = split_options(arguments)
    given = {short_key(name): values[-1] for name, values in options if values}
    has_data = {"", "config", "data"} & given.keys() or any(key.startswith(TRAIN[2:]) for key in given)  # "": -c
    if command != "fit" or given.get("ckpt_path") != _LAST or has_data:
        return arguments, []
    from imgcls.checkpoints.run_folder import newest_run

    runs = Path(given.get(_RUNS[2:]) or keys(command)[_RUNS[2:]]["default"]).expanduser()
    name = given.get(_NAME[2:])
    if folder := newest_run(runs, name):
        config = str(folder / "config.yaml")
        place = {"--config": config, _RUNS: str(runs), _NAME: folder.parent.name}  # it may have been moved
        added = join_options([(option, [value]) for option, value in place.items()])
        return [command, *added, *arguments[1:]], [
            f"Reading --ckpt_path last as the newest run, {shlex.quote(str(folder))}"
        ]
    there = sorted(path.name for path in runs.glob("*/"))
    raise ConfigError(
        f"--ckpt_path last: no run{f' named {name!r}' if name else ''} in '{runs}'"
        f"{f', which contains {listed(there)}' if there else ''}; to train a new model: imgcls fit PHOTOS"
    )
