"""The commands, as `eventcsv --help` lists them: a module for each, or for a few that belong together.

`status` has `pending` and `history`, too, `compact` has `replay`, `verify` has `prune`, `formats` has `export` and
`import`; `run`, `emit`, `report`, `backup` and `log` are what their names say.
"""
