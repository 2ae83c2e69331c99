"""A reference campaign: measured without a network in pieces of minutes, kept as data, rebuilt anywhere."""
