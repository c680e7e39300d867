"""Makes the pictures of the tutorial: a terminal's screen, or a page, as a small PNG by headless Chromium.

tmux capture-pane -e -p > screen.ansi; python docs/picture.py screen.ansi docs/pictures/chat.png --title "llmhpo chat"
python docs/picture.py runs/NAME/report.html docs/pictures/report.png --size 1000x1600 [--dark]
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


def screen_as_svg(ansi: str, title: str) -> tuple[str, tuple[int, int]]:
    """What a terminal showed, without empty lines at its end, as SVG; and its size in pixels."""
    lines = [line.rstrip() for line in ansi.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    text = Text.from_ansi("\n".join(lines))
    columns = max(80, *(line.cell_len for line in text.split("\n")))
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(text, soft_wrap=True)
    svg = console.export_svg(title=title, theme=MONOKAI)
    width, height = svg.split('viewBox="0 0 ')[1].split('"')[0].split()
    return svg, (round(float(width)), round(float(height)))


def shoot(page: Path, output: Path, size: tuple[int, int], *, dark: bool = False) -> None:
    """A picture of a page, as small as PNG makes it without losing colours. Raises: CalledProcessError."""
    chromium = shutil.which("chromium")
    assert chromium, "apt-get install chromium"
    shade = ["--blink-settings=preferredColorScheme=0"] if dark else []
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [chromium, *QUIET, *shade, f"--user-data-dir={folder}/profile", f"--window-size={size[0]},{size[1]}",
             f"--screenshot={shot}", page.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(shot) as picture:
            picture.convert("RGB").save(output, optimize=True)


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path, help="a captured screen, or an .html file")
    parser.add_argument("output", type=Path)
    parser.add_argument("--title", default="llmhpo")
    parser.add_argument("--size", default="1000x1200", help="of the window on a page")
    parser.add_argument("--dark", action="store_true")
    args = parser.parse_args()
    if args.source.suffix == ".html":
        width, height = map(int, args.size.split("x"))
        shoot(args.source, args.output, (width, height), dark=args.dark)
        return
    svg, size = screen_as_svg(args.source.read_text(encoding="utf-8"), args.title)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "screen.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><body style='margin:0'>{svg}", encoding="utf-8")
        shoot(page, args.output, size)


if __name__ == "__main__":
    main()
