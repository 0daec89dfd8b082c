"""An append-only log of checked lines; it knows no CSV.

A *line* is one event with its checksum; a *segment* is a file of lines with a header, and a seal once it is finished;
a *position* is a segment and a byte in it. `scan` says which lines count, `reader` reads segments, `file_log` appends
to them, `interface` is what any log can do, `copy` brings one to another place, and `postgres` keeps it on a server.
Light: no Polars, no command line.
"""
