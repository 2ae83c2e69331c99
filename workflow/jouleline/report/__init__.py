"""The report: one page of sections and figures from the tables of a campaign.

`inputs` reads, `points`, `ratios` and `numbers` work out what is shown, `sections` and `figures` show it.
It must not fit nor integrate: a number that a table lacks is not in the report.
"""
