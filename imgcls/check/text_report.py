"""The findings as text for a terminal."""

from collections.abc import Iterable, Sequence

from imgcls.check.findings import LONG, Copies, Findings
from imgcls.check.inputs import LABELLED
from imgcls.check.near_duplicates import SMALLEST
from imgcls.datasets.labels import to_text
from imgcls.runtime.tables import counted, print_table, shown

_FEW = 10  # examples of each kind
_CLASSES = 50  # rows of the table
_LONGEST = 60  # characters of a class name in the table
_IMBALANCED = 10  # largest class / smallest class, from which it is reported
_MARKS = {"leak": "across splits", "two_labels": "with two labels"}


class TextReport:
    """Prints findings, with a few examples of each kind; ``file`` lists all of them, None if none is written."""

    def __init__(self, findings: Findings, file: str | None) -> None:
        self.findings = findings
        self.more = f"in {file}" if file else "--json FILE lists all"

    def print(self) -> None:
        """Print all parts that are not empty."""
        found = self.findings
        self._print_classes()
        self._print_sizes()
        unreadable = [f"{shown(image.path)}: {shown(reason)}" for image, reason in found.unreadable]
        self._print_examples(f"unreadable: {counted(len(unreadable), 'image')}", unreadable)
        for kind, groups in (("exact", found.exact), ("near", found.near)):
            title = ", ".join([f"{kind} duplicates: {counted(len(groups), 'group')}", *_marked(groups)])
            self._print_examples(title, [_group(group) for group in groups])
        long = [f"{shown(image.path)}: {scan.width} x {scan.height}" for image, scan in found.long]
        title = f"one side over {LONG:g} times the other: {counted(len(long), 'image')}"
        self._print_examples(title, long)
        self._print_examples("remarks", remarks(found))

    def _print_classes(self) -> None:
        classes, splits = self.findings.classes, self.findings.splits
        names = list(dict.fromkeys(name for counts in classes.values() for name in counts))
        rows = [[_cut(name), *(_count(classes.get(split), [name]) for split in splits)] for name in names[:_CLASSES]]
        if rest := names[_CLASSES:]:
            more = f"and {len(rest):,} more ({self.more})"
            rows.append([more, *(_count(classes.get(split), rest) for split in splits)])
        print_table([["class", *splits], *rows, ["all images", *map(str, splits.values())]])
        print()

    def _print_sizes(self) -> None:
        sizes = self.findings.sizes
        if sizes:
            rows = [[name.replace("_", " "), *(f"{value:.5g}" for value in of.values())] for name, of in sizes.items()]
            print_table([["pixels", "smallest", "median", "largest"], *rows])
            print()

    def _print_examples(self, title: str, texts: Sequence[str]) -> None:
        if texts:
            print(title)
            for text in _few(texts, self.more):
                print("  " + text.replace("\n", "\n  "))
            print()


def remarks(found: Findings) -> list[str]:
    """Return remarks, which are not faults, one line each."""
    lines = [f"{split} has no image of {_names(names)}" for split, names in found.missing.items()]
    lines += [f"{split} has classes that train lacks: {_names(names)}" for split, names in found.unknown.items()]
    lines += [f"{split}: {counted(count, 'image')} of no class" for split, count in found.of_no_class.items()]
    lines += [f"empty class folder: {shown(path)}" for path in found.source.empty]
    lines += [
        f"{split}: the largest class has {ratio:.0f} times the images of the smallest"
        for split, ratio in found.imbalance.items()
        if split in LABELLED and ratio >= _IMBALANCED
    ]
    unsearched = {f"with a side below {SMALLEST} pixels": found.tiny, "of nearly one shade": found.even}
    lines += [
        f"excluded from the search for near duplicates: {counted(len(images), 'image')} {what}"
        for what, images in unsearched.items()
        if images
    ]
    if found.source.ignored:
        lines.append(f"ignored by a rule: {counted(len(found.source.ignored), 'file')}; --json FILE lists all")
    return lines


def described(group: Copies) -> str:
    """Return in what way the images of a group are copies."""
    near = f"difference {group.difference:.4f} (of aligned details, 0 to 1)"
    kinds = {"bytes": "the same file", "pixels": "the same pixels", "near": near}
    return kinds[group.kind]


def _marked(groups: Sequence[Copies]) -> list[str]:
    counts = {text: sum(getattr(group, mark) for group in groups) for mark, text in _MARKS.items()}
    return [f"{count:,} {text}" for text, count in counts.items() if count]


def _group(group: Copies) -> str:
    marks = [text for mark, text in _MARKS.items() if getattr(group, mark)]
    labels = ["" if image.label is None else shown(to_text(image.label)) for image in group.images]
    widths = [max(len(image.split) for image in group.images), max(map(len, labels))]
    lines = [
        f"  {image.split:{widths[0]}s}  {label:{widths[1]}s}  {shown(image.path)}"
        for image, label in zip(group.images, labels, strict=True)
    ]
    return "\n".join([", ".join([*marks, described(group)]), *_few(lines, "")])


def _count(counts: dict[str, int] | None, names: Sequence[str]) -> str:
    return "" if counts is None else str(sum(counts.get(name, 0) for name in names))


def _cut(name: str) -> str:
    text = shown(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _few(texts: Sequence[str], where: str) -> Iterable[str]:
    yield from texts[:_FEW]
    if len(texts) > _FEW:
        yield f"and {len(texts) - _FEW:,} more{f' ({where})' if where else ''}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(_few([repr(name) for name in names], ""))
