"""The data dictionary: what every column of the tables means, with its unit."""

from jouleline.report.blocks import Cell, Section, Table, Text, columns
from jouleline.report.inputs import Inputs
from jouleline.schemas.checks import CHECKS
from jouleline.schemas.energy import REGIONS
from jouleline.schemas.model import PREDICTIONS
from jouleline.schemas.runs import RUNS
from jouleline.schemas.timings import TIMINGS

_TABLES = (RUNS, REGIONS, TIMINGS, CHECKS, PREDICTIONS)


def build(inputs: Inputs, stamp: str) -> Section:
    """One folded table per data table. The metadata of the Parquet files has units and meanings too."""
    text = (
        "The same words and units are in the field metadata of the Parquet files. The dictionary of all tables lies "
        "beside them."
    )
    return Section("dictionary", "Data dictionary", [Text(text), *map(_table, _TABLES)])


def _table(table) -> Table:
    rows = [
        [Cell(column.name), column.type, column.unit or "–", column.description] for column in table.columns
    ]
    return Table(
        f"{table.name}: {table.description}", columns("Column", "Type", "Unit", "Meaning"), rows, folded=True
    )
