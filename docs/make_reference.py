"""Write the key reference from schema.json, whose texts are the docstrings of the constructors.

MkDocs runs this file as a hook at each build; the pages are not stored, so that they cannot be out of date.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from imgcls.cli import schema
from imgcls.cli.argv import COMMANDS
from imgcls.cli.help import AT_ONCE
from imgcls.cli.help_pages import PAGES
from imgcls.cli.schema import Schema

SECTIONS = {  # section -> heading of its page
    "experiment": "Experiment",
    "model": "Model",
    "data": "Data",
    "trainer": "Trainer",
    "optuna": "Optuna",
}
CLASSES = {  # page -> (heading, its first lines, the base classes whose classes it describes)
    "datasets": (
        "Datasets",
        "The classes for a split of `data.dataset_classes`. A path alone means `imgcls.FolderImageDataset`.",
        ["ImageDataset"],
    ),
    "callbacks": (
        "Callbacks and loggers",
        "The classes for `trainer.callbacks` and `trainer.logger`. Any other class of Lightning, or of your own, works "
        "too.",
        ["Callback", "Logger"],
    ),
}
_ROLE = re.compile(r":\w+:`~?([^`<]+?)(?: <[^`]*>)?`")  # a role of reStructuredText, in Lightning's docstrings
_EXAMPLE = re.compile(r" Example:: .*?(?= By default|$)")
_DIRECTIVE = re.compile(r"\.\. (note|warning|deprecated)::( [\d.]+)?")
_NAMES = {"array": "list", "boolean": "bool", "integer": "int", "number": "float", "object": "mapping", "string": "str"}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to the documentation (a hook of MkDocs)."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the name of each page of the reference, and its Markdown."""
    return (
        {"commands": _commands()}
        | {section: _section(section, heading) for section, heading in SECTIONS.items()}
        | {name: _classes(*described) for name, described in CLASSES.items()}
    )


def _commands() -> str:
    lines = ["# Commands", ""]
    for command in COMMANDS:
        page = PAGES[command]
        own = {name: found for name, found in schema.keys(command).items() if name.split(".")[0] not in SECTIONS}
        usage = f"imgcls {command} {page.words} [--section.key VALUE ...]"
        lines += [f"## imgcls {command}", "", *_fenced([usage]), page.about, "", *_fenced(page.examples)]
        for name, found in own.items():
            lines += _key(f"--{name}", found, f"{command}.{name}")
    for command, text in AT_ONCE.items():
        lines += [f"## imgcls {command}", "", f"{text[0].upper()}{text[1:]}; see `imgcls {command} --help`.", ""]
    return "\n".join(lines)


def _fenced(lines: Iterable[str]) -> list[str]:
    return ["```text", *lines, "```", ""]


def _section(section: str, heading: str) -> str:
    found = {key: each for key, each in schema.keys("fit").items() if key.split(".")[0] == section}
    lines = [f"# {heading}", "", _text(found.pop(section)), ""]
    for key, each in found.items():
        lines += [f"## {key} {{ #{key} }}", "", _text(each), ""] if schema.inner(each) else _key(key, each, key)
    return "\n".join(lines)


def _classes(heading: str, about: str, bases: list[str]) -> str:
    definitions = json.loads(schema.text())["$defs"]
    lines = [f"# {heading}", "", about, ""]
    for base in bases:
        for path in definitions[base]["properties"]["class_path"]["examples"]:
            lines += [f"## {path} {{ #{path} }}", "", _text(definitions[path]), ""]
            for name, found in definitions[path].get("properties", {}).items():
                is_required = name in definitions[path].get("required", [])
                lines += _key(name, found, f"{path}.{name}", is_required=is_required)
    return "\n".join(lines)


def _key(name: str, found: Schema, anchor: str, *, is_required: bool = False) -> list[str]:
    default = "required" if is_required else f"default `{_shown(found.get('default'))}`"
    types = ", ".join(f"`{each}`" for each in dict.fromkeys(_types(found)) if each != "null")
    about = "; ".join(filter(None, [types, default]))
    return [f"### `{name}` {{ #{anchor} }}", "", about, "", _text(found), ""]


def _types(found: Schema) -> Iterator[str]:
    """Yield what a value may be: types, names of classes, or the values themselves where they are listed."""
    for branch in found.get("anyOf", [found]):
        kinds = branch.get("type", [])
        yield from (_shown(value) for value in branch.get("enum", []))
        yield from (_NAMES.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
        if "$ref" in branch:
            yield branch["$ref"].rpartition("/")[2].rpartition(".")[2]
        elif "anyOf" in branch:
            yield from _types(branch)


def _text(found: Schema) -> str:
    text = _ROLE.sub(r"`\1`", found.get("description", "")).replace("``", "`")
    text = _DIRECTIVE.sub("Note:", _EXAMPLE.sub("", text)).replace(".Set to", ". Set to").strip()  # of Lightning
    text = f"{text[:1].upper()}{text[1:]}".replace(" - `", "\n\n- `")
    parts = re.split(r"(`[^`]*`)", text)
    text = "".join(part if part.startswith("`") else _escaped(part) for part in parts)
    return text if not text or text.endswith((".", ":")) else f"{text}."


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]])", r"\\\1", text).replace("<", "&lt;")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    for page in pages().values():
        print(page)
