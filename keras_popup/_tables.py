"""Tables as plain text."""

import io

import rich.console
import rich.table


def format_table(table: rich.table.Table) -> str:
    """Returns a table as text without colours, empty lines and spaces at the ends of lines."""
    text = io.StringIO()
    rich.console.Console(file=text, width=250, color_system=None, highlight=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())
