"""What a run lacks, before any heavy import: train data, the folder of its model, a checkpoint, a free output file."""

import os
import shlex
from pathlib import Path
from typing import Any

from imgcls.cli.argv import OF_TRAINED, config_files, short_key, split_options
from imgcls.cli.schema import DEFAULT_CLASSES, keys, used_keys
from imgcls.config.yaml_content import Content, compose_yaml, scalar
from imgcls.errors import ConfigError, similar_path

_EXAMPLES = {"predict": " new_photos/", "explain": " photo.jpg"}


def check_required_inputs(arguments: list[str], typed: list[str]) -> None:
    """Refuse a run that would end with an error after seconds of imports; all is checked again where it is used.

    Args:
        arguments: A command line without positional arguments, whose keys exist.
        typed: The command line as it was typed.

    Raises:
        ConfigError: Says what is missing, and what to type.
    """
    command, given = arguments[0], _given(arguments)
    if any(name.endswith(".help") or name.startswith("--print_config") for name, _ in split_options(arguments)):
        return
    if command in {"fit", "tune"} and not any(map(_may_have_train, given)):
        raise ConfigError(
            f"no train data; type: imgcls {command} {'FILE.yaml ' * (command == 'tune')}PHOTOS, where PHOTOS has one "
            f"folder of images per class; or a YAML that names the data: imgcls {command} --config FILE.yaml"
        )
    if command == "fit":
        _check_model(given)
    if command in OF_TRAINED and given.get("ckpt_path") is None:
        _refuse_without_checkpoint(given, typed)
    if command == "predict":
        _check_output(given)
    if command == "export":
        _check_export(given, [name for name, _ in split_options(arguments)[1:]])
    if command == "explain":
        _check_explain(given, [name for name, _ in split_options(arguments)[1:]])


def _given(arguments: list[str]) -> dict[str, Any]:
    """Return dotted key -> value of the configuration files and options; the later one wins."""
    from imgcls.config.overrides import leaves

    found: dict[str, Any] = {}
    for path in config_files(arguments):
        in_file = leaves(Content(compose_yaml(path)).value)
        found |= {short_key(f"--{key}"): value for key, value in in_file.items()}
    for name, values in split_options(arguments)[1:]:
        found[short_key(name)] = scalar(values[0]) if values else True
    return found


def _may_have_train(key: str) -> bool:
    """Whether train data may be in the value of a key, which may be a file, a class or its arguments."""
    whole = {"data", "data.class_path", "data.init_args", "data.dataset_classes"}
    return key in whole or key.startswith("data.dataset_classes.train")


def _check_model(given: dict[str, Any]) -> None:
    """Refuse the folder of a model that does not exist; a resumed run needs none, and a class may use it otherwise."""
    name = given.get("model.model_name")
    is_ours = given.get("model.class_path", DEFAULT_CLASSES["model"]) == DEFAULT_CLASSES["model"]
    if isinstance(name, str) and is_ours and "model" not in given and given.get("ckpt_path") is None:
        from imgcls.models.huggingface.hub_ids import local_or_hub

        local_or_hub(name)


def _refuse_without_checkpoint(given: dict[str, Any], typed: list[str]) -> None:
    from imgcls.checkpoints.run_folder import newest_best

    command, *rest = typed
    key = "experiment.output_dir"
    runs = _path(given.get(key) or keys("fit")[key]["default"])
    newest = newest_best(runs) if os.path.isdir(runs) else None
    words = f" {shlex.join(rest)}" if rest else _EXAMPLES.get(command, "")
    run = shlex.quote(str(newest.parents[1])) if newest else "runs/NAME/version_N"
    train = "" if newest else "; to train one: imgcls fit PHOTOS"
    found = f", such as {newest}" if newest else ""
    raise ConfigError(
        f"{command} needs the checkpoint of a trained model{found}; type: imgcls {command} {run}{words}{train}"
    )


def _check_output(given: dict[str, Any]) -> None:
    from imgcls.checkpoints.run_folder import run_folder_of
    from imgcls.runtime.output_file import refuse_existing
    from imgcls.runtime.resumable_output import refuse_unfinished

    if given.get("overwrite"):
        return
    output, checkpoint, embeddings = given.get("output"), given["ckpt_path"], given.get("embeddings")
    if output is None and checkpoint != "last":
        output = (run_folder_of(_path(checkpoint)) or Path()) / "predictions.csv"
    if output is not None and not given.get("resume"):
        refuse_unfinished(_path(output))
    if output is not None:
        refuse_existing(_path(output))
    if embeddings is not None:
        refuse_existing(_path(embeddings), "--embeddings")


def _check_export(given: dict[str, Any], names: list[str]) -> None:
    from imgcls.checkpoints.run_folder import run_folder_of
    from imgcls.export.formats import ExportOptions, check_options, default_folder
    from imgcls.runtime.output_folder import EXPORT, refuse_folder

    _refuse_unused("export", names)
    batched, quantize, sized = (bool(given.get(name)) for name in ("batched", "quantize", "from_network_input"))
    check_options(given.get("format", "hf"), ExportOptions(batched, quantize, sized))
    folder, checkpoint = given.get("output"), given["ckpt_path"]
    if checkpoint != "last":
        _check_file(checkpoint)
        folder = folder or default_folder(run_folder_of(_path(checkpoint)), given.get("format", "hf"))
    if folder is not None:
        refuse_folder(_path(folder), bool(given.get("overwrite")), EXPORT)


def _check_explain(given: dict[str, Any], names: list[str]) -> None:
    from imgcls.checkpoints.run_folder import run_folder_of
    from imgcls.runtime.output_folder import EXPLANATIONS, default_explanations, refuse_folder

    _refuse_unused("explain", names)
    folder, checkpoint = given.get("output"), given["ckpt_path"]
    if given.get("images") is None:
        raise ConfigError(f"explain needs images; type: imgcls explain {shlex.quote(str(checkpoint))} PHOTO ...")
    if checkpoint != "last":
        _check_file(checkpoint)
        folder = folder or default_explanations(run_folder_of(_path(checkpoint)))
    if folder is not None:
        refuse_folder(_path(folder), bool(given.get("overwrite")), EXPLANATIONS)


def _refuse_unused(command: str, names: list[str]) -> None:
    """Refuse an option of other commands."""
    unused = keys(command).keys() - used_keys(command).keys()
    if foreign := [name for name in names if short_key(name) in unused]:
        raise ConfigError(f"{command} uses the model and the preprocessing of the checkpoint; leave {foreign[0]} out")


def _check_file(checkpoint: Any) -> None:
    if not os.path.isfile(_path(checkpoint)):
        raise ConfigError(f"--ckpt_path {checkpoint}: no such file{similar_path(checkpoint)}")


def _path(value: object) -> Path:
    return Path(os.path.expanduser(str(value)))  # that of pathlib fails if there is no such user
