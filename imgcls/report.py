"""What a command says at its end."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_results(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table: one row a metric, one column a split; plain text where standard output is no terminal.

    Args:
        results: Split -> logged name -> value.
    """
    names = dict.fromkeys(name.removeprefix(f"{split}_") for split, values in results.items() for name in values)
    rows = [[name, *(_cell(values.get(f"{split}_{name}")) for split, values in results.items())] for name in names]
    console = Console()
    if console.is_terminal:
        table = Table("metric", *results)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(*rows, ["metric", *results], strict=True)]
    for row in [["metric", *results], *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
