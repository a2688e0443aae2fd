"""Configurations with one mistake, made at random from good ones."""

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]
Path = tuple[str | int, ...]

KINDS = ("dropped letter", "swapped letters", "wrong type", "wrong section")
_FREE = ("metrics", "search_spaces", "augmentations")  # what the parser does not look into
_FOREIGN: list[Any] = ["abc", 7, 0.5, True, [1, "a"], {"a": 1}]


@dataclass
class Mutated:
    """A configuration with a mistake, and the dotted key that was right."""

    kind: str
    config: Config
    key: str
    found: str


def mutated(bases: list[Config], count: int, seed: int) -> list[Mutated]:
    """Return configurations with one mistake each, the kinds of mistakes in turn."""
    generator = random.Random(seed)
    made: list[Mutated] = []
    while len(made) < count:
        config = copy.deepcopy(generator.choice(bases))
        path = generator.choice(list(_paths(config, ())))
        if one := _mutate(KINDS[len(made) % len(KINDS)], config, path, generator):
            made.append(one)
    return made


def _paths(value: Any, path: Path) -> Iterator[Path]:
    """Yield the paths of all keys that the parser checks."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(key, str):
            yield (*path, key)
        if key not in _FREE:
            yield from _paths(item, (*path, key))


def _mutate(kind: str, config: Config, path: Path, generator: random.Random) -> Mutated | None:
    parent: Any = config
    for part in path[:-1]:
        parent = parent[part]
    name = str(path[-1])
    key = ".".join(map(str, path))
    if kind == "wrong type":
        others = [value for value in _FOREIGN if _kind(value) != _kind(parent[name])]
        if "dataset_classes" in path:  # takes a mapping, too
            others = [value for value in others if not isinstance(value, dict)]
        parent[name] = generator.choice(others)
        return Mutated(kind, config, key, key)
    if kind == "wrong section":
        sections = [section for section in ("model", "data", "trainer", "experiment", "optuna") if section != path[0]]
        if len(path) < 2 or "callbacks" in path or "init_args" in path[2:] or name in {"class_path", "init_args"}:
            return None  # an argument of any class, which has no section
        if parent[name] == {}:
            return None  # jsonargparse ignores an empty mapping under any name; the schema is stricter
        section = generator.choice(sections)
        value, target = parent.pop(name), config.setdefault(section, {})
        target = target.get("init_args", target)
        if name in target:
            return None
        target[name] = value
        return Mutated(kind, config, key, f"{section}.{name}")
    changed = _misspelt(kind, name, generator)
    if changed in (name, "") or changed in parent:
        return None
    content = {changed if each == name else each: value for each, value in parent.items()}
    parent.clear()
    parent.update(content)
    return Mutated(kind, config, key, ".".join(map(str, (*path[:-1], changed))))


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _misspelt(kind: str, name: str, generator: random.Random) -> str:
    place = generator.randrange(len(name))
    if kind == "dropped letter":
        return name[:place] + name[place + 1 :]
    return name[:place] + name[place : place + 2][::-1] + name[place + 2 :]
