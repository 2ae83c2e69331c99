"""The checks table: one row per run and check."""

from jouleline.schemas import Column, Table

CHECKS = Table(
    "checks",
    "One row per run and expectation. A failed check of severity error keeps the run out of every fit.",
    (
        Column("run_id", "string", "", "Run that was checked"),
        Column("name", "string", "", "Name of the expectation"),
        Column("passed", "bool", "", "Whether it holds; null where it could not be decided"),
        Column("severity", "string", "", "info, warning or error"),
        Column("message", "string", "", "What was expected and what was found"),
        Column("details", "string", "", "The numbers behind it, as JSON"),
    ),
)
