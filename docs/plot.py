"""Draw the fan-out table of docs/explanation/performance.md as an SVG: ``python docs/plot.py``."""

from __future__ import annotations

import html
import math
from pathlib import Path

PAGE = Path(__file__).parent / "explanation" / "performance.md"
LEFT, TOP, WIDTH, ROW, GAP = 170, 56, 170, 22, 40
TICKS = {4: "10,000", 5: "100,000", 6: "1 m", 7: "10 m"}


def figures(page: str) -> list[list[str]]:
    """The cells of the table of deliveries a second, its header first."""
    found = page[page.index("| deliveries/s to |") :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found if "---" not in line]


def svg(page: str) -> str:
    """One panel for each number of subscribers, one dot for each server, on a logarithmic scale."""
    header, *rows = figures(page)
    panels = [column for column, name in enumerate(header) if name.endswith("subscribers")]
    bottom = TOP + ROW * len(rows)
    right = LEFT + (WIDTH + GAP) * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {bottom + 34}"',
        'font-family="sans-serif" font-size="12">',
        "<title>Deliveries a second, by number of subscribers</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{LEFT}" y="20">Deliveries a second (logarithmic scale, m: million)</text>',
    ]

    def text(x: float, y: float, words: str, more: str = "") -> None:
        lines.append(f'<text x="{x:.0f}" y="{y:.0f}"{more}>{html.escape(words)}</text>')

    for number, row in enumerate(rows):
        text(LEFT - 10, TOP + ROW * (number + 0.5) + 4, row[0].replace("`", ""), ' text-anchor="end"')
    for number, column in enumerate(panels):
        left = LEFT + (WIDTH + GAP) * number
        text(left, TOP - 12, header[column], ' font-weight="bold"')
        for power, label in TICKS.items():
            x = left + WIDTH * (power - 4) / 3
            lines.append(f'<path d="M{x:.0f} {TOP}V{bottom}" stroke="#ccc"/>')
            text(x, bottom + 16, label, ' text-anchor="middle" font-size="9"')
        for place, row in enumerate(rows):
            x = left + WIDTH * (math.log10(float(row[column].replace(",", ""))) - 4) / 3
            y = TOP + ROW * (place + 0.5)
            colour = "#c2410c" if row[0].startswith("Tambur") else "#475569"
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.0f}" r="5" fill="{colour}"/>')
            side, anchor = (-9, "end") if x > left + 0.6 * WIDTH else (9, "start")
            text(x + side, y + 4, row[column], f' text-anchor="{anchor}" font-size="10"')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PAGE.with_suffix(".svg").write_text(svg(PAGE.read_text("utf-8")), "utf-8")
