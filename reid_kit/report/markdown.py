"""Tables that read well in a terminal and as Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column stands to the left, the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    rule = ["-" * (width + 1) + ":" for width in widths]
    rule[0] = rule[0][::-1]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths)
        return " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

    return "\n".join([f"| {line(heads)} |", f"|{'|'.join(rule)}|", *(f"| {line(row)} |" for row in rows)])
