"""The report: one page of sections and figures from the tables of a campaign.

`inputs` reads. `points`, `ratios` and `numbers` work out what is shown. `sections` and `figures` show it.
It must not fit or integrate: a number that no table has is not in the report.
"""
