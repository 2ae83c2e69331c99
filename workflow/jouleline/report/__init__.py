"""The report of a campaign: inputs read once, sections of blocks, figures, one page. It draws; it decides nothing."""
