"""The CSV in memory, pure: read strictly, folded onto, written faithfully.

A *table* is the CSV as raw cells with its *dialect*; a *frame* is many lines of the log at once. `cells` cuts the text
of a CSV, `options` is what a caller says of one, `reader` reads one and `table` writes it, `frames` and `read_ahead`
parse the log, `fold` says that the last line that sets a cell wins, and `merge` takes what a person saved together with
what results have set since, by what `difference` and `versions` tell of it; `respelling` knows what a program
only writes in another way.
"""
