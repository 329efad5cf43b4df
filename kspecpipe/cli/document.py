"""A page of text and tables that can be printed, or written as Markdown or reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

Format = Literal["text", "md", "rst"]


@dataclass(frozen=True)
class Paragraph:
    """Running text; double backticks mark code."""

    text: str


@dataclass(frozen=True)
class Code:
    """Lines shown as they are; ``language`` colours them in the documentation."""

    text: str
    language: str = "text"


@dataclass(frozen=True)
class Table:
    """A table of texts; the last column explains. Columns without any text are left out."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        """Leave out empty columns."""
        kept = [i for i in range(len(self.header)) if any(row[i] for row in self.rows)]
        object.__setattr__(self, "header", [self.header[i] for i in kept])
        object.__setattr__(self, "rows", [[row[i] for i in kept] for row in self.rows])


@dataclass(frozen=True)
class Heading:
    """Title of a section (level 2) or of a part of one (level 3)."""

    text: str
    level: int = 2


Block = Paragraph | Code | Table | Heading


@dataclass(frozen=True)
class Document:
    """A titled page."""

    title: str
    blocks: Sequence[Block]

    @property
    def body(self) -> str:
        """The page as Markdown without its title, to be included in another."""
        return "\n\n".join(_markdown(block) for block in self.blocks) + "\n"

    def markdown(self) -> str:
        """Return the page as Markdown for MyST."""
        return f"# {self.title}\n\n{self.body}"

    def rst(self) -> str:
        """Return the page as reStructuredText."""
        parts = [_underlined(self.title, "="), *(_rst(block) for block in self.blocks)]
        return "\n\n".join(parts) + "\n"

    def show(self, console: Console) -> None:
        """Print the page, as wide as the terminal."""
        console.print(Text(self.title, style="bold"))
        for block in self.blocks:
            _show(block, console)


def _markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Code):
        return f"```{block.language}\n{block.text}\n```"
    if isinstance(block, Table):
        rule = ["---"] * len(block.header)
        rows = [[_cell(text) for text in row] for row in block.rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in (block.header, rule, *rows))
    return block.text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<") or " "


def _rst(block: Block) -> str:
    if isinstance(block, Heading):
        return _underlined(block.text, "-" if block.level == 2 else "~")
    if isinstance(block, Code):
        return f".. code-block:: {block.language}\n\n{_indented(block.text)}"
    if isinstance(block, Table):
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in (block.header, *block.rows):
            lines += [f"   {'* -' if i == 0 else '  -'} {_role(t)}" for i, t in enumerate(row)]
        return "\n".join(lines)
    return _role(block.text)


def _role(text: str) -> str:
    """Turn single backticks, which Markdown takes as code, into double ones."""
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)


def _underlined(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _indented(text: str) -> str:
    return "\n".join(f"   {line}".rstrip() for line in text.splitlines())


def _show(block: Block, console: Console) -> None:
    if isinstance(block, Heading):
        title = block.text if block.level == 2 else f"  {block.text}"
        console.print(Text(f"\n{title}", "bold"))
    elif isinstance(block, Code):
        code = Padding(Text(block.text, "cyan"), (1, 0, 1, 8), expand=False)
        console.print(code, soft_wrap=True)
    elif isinstance(block, Table):
        table = _indent(_rich_table(block), 4)
        fits = console.measure(table, options=console.options.update(width=500)).maximum
        console.print(table if fits <= console.width else _entries(block))
    else:
        plain = re.sub(r"`+([^`]+)`+", r"\1", " ".join(block.text.split()))
        console.print(_indent(Text(plain), 4))


def _indent(content: Text | RichTable, width: int) -> Padding:
    return Padding(content, (0, 0, 0, width), expand=False)


def _rich_table(block: Table) -> RichTable:
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="underline")
    for name in block.header:
        table.add_column(name)
    for row in block.rows:
        table.add_row(*(escape(text.replace("`", "")) for text in row))
    return table


def _entries(block: Table) -> Group:
    """Lay out a table that is too wide: name, other columns in one line, meaning below."""
    lines: list[Padding] = []
    for name, *values, meaning in block.rows:
        pairs = zip(block.header[1:-1], values, strict=True)
        facts = "; ".join(f"{head}: {value}" for head, value in pairs if value)
        line = RichTable.grid(padding=(0, 2, 0, 0))
        line.add_row(Text(name, "bold", no_wrap=True), Text(facts))
        lines.append(_indent(line, 4))
        lines.append(Padding(Text(meaning.replace("`", "")), (0, 0, 0, 8), expand=False))
    return Group(*lines)
