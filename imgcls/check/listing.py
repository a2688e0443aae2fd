"""The findings as text for a terminal."""

from collections.abc import Iterable, Sequence

from imgcls.check.findings import LONG, Copies, Findings
from imgcls.check.sources import LABELLED
from imgcls.report import print_table

_FEW = 10  # examples of each kind
_UNEVEN = 10  # largest : smallest class, from which a remark is made


class Listing:
    """Prints findings: what is wrong first, each kind with a few examples.

    Args:
        findings: The findings.
        file: The file that lists all of them; None where none is written.
    """

    def __init__(self, findings: Findings, file: str | None) -> None:
        self.findings = findings
        self.more = f"in {file}" if file else "--json FILE lists all"

    def print(self) -> None:
        """Print all parts that have something to say."""
        found = self.findings
        self._print_classes()
        self._print_sizes()
        self._examples(
            f"{len(found.unreadable)} files cannot be read:",
            [f"{shown(item.path)}: {shown(reason)}" for item, reason in found.unreadable],
        )
        self._print_copies("exact duplicates", found.exact)
        self._print_copies("near duplicates", found.near)
        for text in remarks(found):
            print(text)
        self._examples(
            f"{len(found.long)} images are over {LONG:g} times as long as wide, or as wide as long:",
            [f"{shown(item.path)}: {look.width} x {look.height}" for item, look in found.long],
        )

    def _print_classes(self) -> None:
        classes = self.findings.classes
        splits = self.findings.splits
        names = list(dict.fromkeys(name for counts in classes.values() for name in counts))
        rows = [[shown(name), *(str(classes.get(split, {}).get(name, "")) for split in splits)] for name in names]
        print_table([["class", *splits], *rows, ["all images", *map(str, splits.values())]])
        print()

    def _print_sizes(self) -> None:
        sizes = self.findings.sizes
        if sizes:
            rows = [[name.replace("_", " "), *(f"{value:.5g}" for value in of.values())] for name, of in sizes.items()]
            print_table([["pixels", "smallest", "median", "largest"], *rows])
            print()

    def _print_copies(self, kind: str, groups: Sequence[Copies]) -> None:
        leaks, labels = sum(group.leak for group in groups), sum(group.two_labels for group in groups)
        title = f"{len(groups)} groups of {kind} ({leaks} across splits, {labels} with two labels):"
        self._examples(title, [_group(group) for group in groups])

    def _examples(self, title: str, texts: Sequence[str]) -> None:
        if not texts:
            return
        print(title)
        for text in _few(texts, self.more):
            print("  " + text.replace("\n", "\n  "))
        print()


def remarks(found: Findings) -> list[str]:
    """Return what is worth knowing and no fault, one line each."""
    lines = [f"{split} has no image of {_names(names)}" for split, names in found.missing.items()]
    lines += [f"{split} has classes that train lacks: {_names(names)}" for split, names in found.unknown.items()]
    lines += [f"an empty class folder: {shown(path)}" for path in found.source.empty]
    for split, ratio in found.imbalance.items():
        if split in LABELLED and ratio >= _UNEVEN:
            lines.append(f"{split}: the largest class has {ratio:.0f} times the images of the smallest")
    if found.tiny:
        lines.append(
            f"{len(found.tiny)} images have fewer than 32 pixels on a side, and were not searched for near duplicates"
        )
    if found.even:
        lines.append(f"{len(found.even)} images are of one shade or nearly, and were not searched for near duplicates")
    if found.source.ignored:
        lines.append(f"{len(found.source.ignored)} files are ignored by a rule; --json FILE lists them")
    return lines


def shown(text: str) -> str:
    """Return a text that any terminal can show on one line: what is not printable is escaped."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _group(group: Copies) -> str:
    marks = ["across splits"] * group.leak + ["two labels"] * group.two_labels
    kind = {"bytes": "the same file", "pixels": "the same pixels", "near": f"differing by {group.difference:.4f}"}
    head = ", ".join([*marks, kind[group.kind]])
    lines = [f"  {item.split}  {_label(item.label)}{shown(item.path)}" for item in group.items]
    return "\n".join([head, *_few(lines, "")])


def _label(label: str | None) -> str:
    return "" if label is None else f"{shown(label)}  "


def _few(texts: Sequence[str], where: str) -> Iterable[str]:
    yield from texts[:_FEW]
    if len(texts) > _FEW:
        yield f"and {len(texts) - _FEW} more{f' ({where})' if where else ''}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(_few([repr(name) for name in names], ""))
