"""A table of the report as lines of Markdown."""

from jouleline.report.blocks import Group, Table


def markdown(table: Table) -> list[str]:
    """Caption, head and rows. The rows of a group name it in a first column."""
    grouped = any(isinstance(row, Group) for row in table.rows)
    heads = [*([""] if grouped else []), *(column.header for column in table.columns)]
    lines = [f"**{table.caption}**", "", _line(heads), "|---" * len(heads) + "|"]
    group = ""
    for row in table.rows:
        if isinstance(row, Group):
            group = row.text
            continue
        words = [f"{cell.text}: {cell.hover}" if cell.hover else cell.text for cell in row]
        lines.append(_line([group, *words] if grouped else words))
    return [*lines, "", table.note] if table.note else lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
