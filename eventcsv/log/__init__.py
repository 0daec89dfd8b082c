"""An append-only log of checked lines; of the CSV it knows no more than the path, which its header names.

A *line* is one event with its checksum; a *segment* is a file of lines with a header, and a seal once it is finished; a
*position* is a segment and a byte in it. `types` has the nouns. `line` makes lines, `scan` says which of them count,
`segment` reads one segment and `reader` all of them, with `checksum` for a part of what was summed up; `rotation`
begins, seals and removes them, `file_log` appends to the last one what a `writer` has made. `interface` is what any log
can do, `opening` finds the one that is meant, `history` has the events of one key, `retry` what becomes of an append
that fails, `copy` brings a log to another place, and `postgres` keeps it on a server. Light: no Polars, no command
line.
"""
