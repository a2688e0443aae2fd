"""Write schema.json, the JSON Schema of the configuration, from the classes that the parser makes its options of.

Run it after changing an option, a default or a docstring: ``python -m imgcls.cli.make_schema``; a test compares.
"""

import inspect
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from docstring_parser import parse
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

import imgcls
from imgcls.cli.argv import COMMANDS
from imgcls.cli.models import names
from imgcls.cli.options import add_options
from imgcls.cli.schema import DEFAULT_CLASSES, Schema

FILE = Path(__file__).with_name("schema.json")

_SECTIONS = DEFAULT_CLASSES | {  # section -> the class of its keys
    "trainer": "imgcls.commands.trainer.ImgclsTrainer",
    "experiment": "imgcls.config.sections.ExperimentConfig",
    "optuna": "imgcls.config.sections.OptunaConfig",
}
_CALLBACKS = "BatchSizeFinder DeviceStatsMonitor EarlyStopping LearningRateFinder LearningRateMonitor ModelCheckpoint "
_CALLBACKS += "RichProgressBar StochasticWeightAveraging TQDMProgressBar Timer"
_SUBCLASSES: dict[str, list[str]] = {  # base class -> the classes that the schema describes; the parser knows more
    "Accelerator": [],
    "Callback": [
        "imgcls.EMA",
        "imgcls.MetricsLogger",
        *(f"lightning.pytorch.callbacks.{c}" for c in _CALLBACKS.split()),
    ],
    "ImageDataset": [f"imgcls.{name}" for name in imgcls.HOMES if name.endswith("Dataset") and name != "ImageDataset"],
    "Logger": [f"lightning.pytorch.loggers.{name}Logger" for name in ("CSV", "MLFlow", "TensorBoard", "Wandb")],
    "Plugin": [],
    "Profiler": ["lightning.pytorch.profilers.SimpleProfiler"],
    "Strategy": ["lightning.pytorch.strategies.DDPStrategy"],
}
# Options of the Trainer that hold such classes, and the other types that they take. jsonargparse 4.53 would describe
# all their subclasses, which takes a minute, and fails at one of Lightning's types.
_HOLDERS = {
    "accelerator": ("Accelerator", ["string"]),
    "strategy": ("Strategy", ["string"]),
    "logger": ("Logger", ["boolean", "null"]),
    "callbacks": ("Callback", ["null"]),
    "profiler": ("Profiler", ["string", "null"]),
    "plugins": ("Plugin", ["null"]),
}
_CLASS = {
    "properties": {"class_path": {"type": "string"}, "init_args": {}, "dict_kwargs": {}},
    "additionalProperties": False,
}
_OTHER = {"type": ["string", "object"]}  # an object whose classes are not described
_IS_SPEC = {"anyOf": [{"required": ["class_path"]}, {"required": ["init_args"]}]}  # else arguments alone
_NO_TABLE = r"^(?!.*\.(csv|tsv|txt)$)"  # of a table, the parser would take the content for a configuration


def collect() -> Schema:
    """Return the JSON Schema of what the parser accepts, with its help texts and defaults."""
    described = [path for paths in ([_SECTIONS["model"], _SECTIONS["data"]], *_SUBCLASSES.values()) for path in paths]
    made = _generated({*described, *_SECTIONS.values()})
    arguments = {path: made["properties"][_name(path)] for path in {*described, *_SECTIONS.values()}}
    for dataset in arguments[_SECTIONS["data"]]["properties"]["dataset_classes"]["properties"].values():
        dataset["pattern"] = _NO_TABLE
    arguments[_SECTIONS["model"]]["properties"]["model_name"]["examples"] = names()
    trainer = arguments[_SECTIONS["trainer"]]
    trainer["properties"] |= {name: _holder(name, *held) for name, held in _HOLDERS.items()}
    own = {command: _own_options(command) for command in COMMANDS}
    sections = {
        name: _class_section(path, arguments) if "Image" in path else arguments[path]
        for name, path in _SECTIONS.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imgcls",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            **{k: v for each in own.values() for k, v in each.items()},
            **sections,
        },
        "additionalProperties": False,
        "$defs": {
            "class": _CLASS,
            **{f"options of {command}": {"properties": options} for command, options in own.items()},
            **{
                name: found if "properties" in found else _OTHER
                for name, found in made["$defs"].items()
                if name not in _SUBCLASSES
            },
            **{base: _subclass(paths) for base, paths in _SUBCLASSES.items()},
            **{path: arguments[path] for path in described},
        },
    }


def _generated(class_paths: set[str]) -> Schema:
    """Let jsonargparse describe the arguments of classes, each under its name."""
    parser = ArgumentParser(exit_on_error=False)
    for path in sorted(class_paths):
        module, _, name = path.rpartition(".")
        skipped = set(_HOLDERS) if path == _SECTIONS["trainer"] else set()
        parser.add_class_arguments(getattr(import_module(module), name), _name(path), skip=skipped, fail_untyped=False)
    return _described(parser)


def _name(class_path: str) -> str:
    return class_path.replace(".", "_")


def _described(parser: ArgumentParser) -> Schema:
    """Return the schema that jsonargparse makes of a parser."""
    schema: Schema = json.loads(parser.get_completion_script("jsonschema"), object_hook=_tidied)
    return schema


def _tidied(found: Schema) -> Schema:
    """Leave out the line breaks of docstrings, and the key for a schema, which jsonargparse gives to each section."""
    if isinstance(found.get("description"), str):
        found["description"] = " ".join(found["description"].split())
    if isinstance(found.get("properties"), dict):
        found["properties"].pop("$schema", None)
    return found


def _own_options(command: str) -> Schema:
    """Describe the options of a command that are in no section."""
    parser = ArgumentParser(exit_on_error=False)
    LightningCLI.add_default_arguments_to_parser(cast(Any, SimpleNamespace(seed_everything_default=42)), parser)
    add_options(parser, command)
    options: Schema = _described(parser)["properties"]
    return options


def _holder(name: str, base: str, others: list[str]) -> Schema:
    text = next(each.description for each in parse(inspect.getdoc(Trainer.__init__)).params if each.arg_name == name)
    item = {"$ref": f"#/$defs/{base}"}
    in_list = {"allOf": [item, {"$ref": "#/$defs/class"}]}
    several = [] if "string" in others else [{"type": "array", "items": in_list}]
    default = inspect.signature(Trainer).parameters[name].default
    return _tidied({"anyOf": [{"type": others}, item, *several], "description": text, "default": default})


def _subclass(paths: list[str]) -> Schema:
    """The schema of a class given by class_path and init_args; those of classes that are not listed may be any."""
    listed = [{"if": _is_class(path) | {"required": ["class_path"]}, "then": _with_arguments(path)} for path in paths]
    return {
        "type": "object",
        "properties": {"class_path": {"type": "string", "examples": paths}},
        "if": _IS_SPEC,
        "then": {"allOf": [{"$ref": "#/$defs/class"}, *listed]},
    }


def _class_section(path: str, arguments: Schema) -> Schema:
    """The schema of a section that is a class, whose arguments may also be given without ``init_args``."""
    return {
        "type": "object",
        "description": arguments[path].pop("description"),
        "default": path,
        "if": _IS_SPEC,
        "then": {"$ref": "#/$defs/class", "if": _is_class(path), "then": _with_arguments(path)},
        "else": {"$ref": f"#/$defs/{path}"},
    }


def _is_class(path: str) -> Schema:
    return {"properties": {"class_path": {"const": path}}}


def _with_arguments(path: str) -> Schema:
    return {"properties": {"init_args": {"$ref": f"#/$defs/{path}"}}}


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
