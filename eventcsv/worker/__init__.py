"""What a worker process loads.

`values` makes text of whatever a caller has in hand, `rules` makes cells and a line of it that can be recorded, and
`serve` is the loop of a worker of `Session.run`. Light: no Polars, no command line.
"""
