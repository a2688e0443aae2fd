"""Draw a real run of the quickstart on a terminal: docs/images/terminal.svg while it trains, results.svg at its end.

python docs/make_pictures.py, from the repository's root; needs the dev dependencies.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from pyte.screens import Char
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
COMMAND = ("fit", "--config", "configs/quickstart.yaml")
WIDTH, LINES = 100, 120
COLOURS = {"default": None, "brown": "yellow", "brightbrown": "bright_yellow"}  # pyte's names that rich does not have


def record(folder: Path) -> list[str]:
    """Run the command on a terminal, and return what it writes, piece by piece.

    Args:
        folder: Where the run is stored.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, WIDTH, 0, 0))
    size = {"COLUMNS": str(WIDTH), "LINES": str(LINES), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-m", "imgcls", *COMMAND, f"--experiment.output_dir={folder}/runs"]
    environment = os.environ | size | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    found: list[str] = []
    try:
        while piece := os.read(ours, 65536):
            found.append(piece.decode(errors="replace"))
    except OSError:  # how Linux reports that the program has closed the terminal
        pass
    if process.wait():
        raise SystemExit("".join(found))
    return found


def screen_after(text: str) -> pyte.Screen:
    """Return the screen of a terminal to which a text was written."""
    screen = pyte.Screen(WIDTH, LINES)
    pyte.Stream(screen).feed(text)
    return screen


def draw(screen: pyte.Screen, first: int, path: Path) -> None:
    """Draw the lines of a screen, from one of them to the last that is not empty."""
    lines = [Text("$ imgcls " + " ".join(COMMAND), style="bold")] if first == 0 else []
    last = max(number for number, line in enumerate(screen.display) if line.strip())
    for number in range(first, last + 1):
        row = screen.buffer[number]
        line = Text.assemble(*((row[column].data, style_of(row[column])) for column in range(WIDTH)))
        line.rstrip()
        lines.append(line)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("\n").join(lines), soft_wrap=True)
    svg = console.export_svg(title="imgcls")
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)  # fonts of another server
    path.write_text(re.sub(r"[ \t]+\n", "\n", svg), encoding="utf-8")


def style_of(char: Char) -> Style:
    """Return the style of a character."""
    colour, ground = map(colour_of, (char.fg, char.bg))
    return Style(color=colour, bgcolor=ground, bold=char.bold, italic=char.italics, underline=char.underscore)


def colour_of(name: str) -> str | None:
    """Return rich's name of a colour of pyte; None for the terminal's own."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return COLOURS.get(name, re.sub("^bright(?!_)", "bright_", name))


def main() -> None:
    """Run the command, and draw its terminal."""
    with tempfile.TemporaryDirectory() as folder:
        pieces = record(Path(folder))
        text = "".join(pieces).replace(f"{folder}/", "").replace(f"{ROOT}/", "")
    bars = [match.start() for match in re.finditer("images/s", text)]
    training = [place for place in bars if text.rfind("Epoch ", 0, place) > text.rfind("Validation", 0, place)]
    moment = text.index("left", training[len(training) * 2 // 3])
    end = screen_after(text)
    IMAGES.mkdir(exist_ok=True)
    draw(screen_after(text[:moment] + "left"), 0, IMAGES / "terminal.svg")
    first = next(number for number, line in enumerate(end.display) if line.startswith("Best epoch"))
    draw(end, first, IMAGES / "results.svg")


if __name__ == "__main__":
    main()
