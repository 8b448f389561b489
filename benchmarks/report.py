"""What a part has found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Cells are ready to print; the first column is text, the others figures."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def add(self, *cells: str) -> None:
        self.rows.append(cells)

    def add_missing(self, name: str, how_to_install: object) -> None:
        """A row for what is not here."""
        self.add(name, f"missing: {how_to_install}", *[""] * (len(self.columns) - 2))


@dataclass(frozen=True)
class Target:
    """An aim, what was measured, and whether that is enough; ``None`` where it could not be measured."""

    aim: str
    measured: str
    is_reached: bool | None

    @classmethod
    def at_least(cls, aim: str, value: float | None, limit: float) -> Target:
        """A ratio that should reach a limit."""
        if value is None:
            return cls(aim, "not measured", None)
        return cls(aim, f"{value:.2f} times", value >= limit)


@dataclass(frozen=True)
class Curves:
    """A plot over the number of subscribers, both axes logarithmic; a curve for each contender."""

    title: str
    points: Mapping[str, Sequence[tuple[float, float]]]


@dataclass
class Section:
    """One part of the page.

    Attributes:
        text: how it was measured, and what there is to know.
        targets: the aims of the project, beside what was measured.
        curves: for the plot of the page.
    """

    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)

    def markdown(self) -> str:
        blocks = [f"## {self.title}", self.text, *[table.markdown() for table in self.tables], *self.notes]
        if self.targets:
            words = {True: "yes", False: "**no**", None: "-"}
            aims = Table(["aim", "measured", "reached"])
            aims.rows = [[t.aim, t.measured, words[t.is_reached]] for t in self.targets]
            blocks.append(aims.markdown())
        return "\n\n".join(blocks) + "\n"


def number(value: float) -> str:
    """With thousands separated, and three digits at least where it is small."""
    if value >= 1000:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
