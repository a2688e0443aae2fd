"""Advice: what limits a model, the evidence for it, and what to do."""

from dataclasses import dataclass, field

from imgcls.results.run import Run


@dataclass(frozen=True)
class Advice:
    """One thing that limits a model.

    Args:
        kind: A short name of the finding, for machines and tests, such as ``few_images``.
        title: What limits it, in one line.
        evidence: The figures that it follows from.
        action: What to do.
        paths: Images that show it, the most telling first; may be empty.
    """

    kind: str
    title: str
    evidence: str
    action: str
    paths: list[str] = field(default_factory=list)


def advise(run: Run) -> list[Advice]:
    """Return what limits a model, the most important first; empty if nothing was found.

    Args:
        run: The run folder.
    """
    return []
