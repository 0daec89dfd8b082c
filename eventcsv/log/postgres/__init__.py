"""The log on a PostgreSQL server, so that many hosts share it; nothing else loads the client.

`log` is the log and `reader` what reads it, `server` a connection that lives as long as it can, `schema` the tables and
functions, `admin` makes them, and `claims` keeps two hosts from working on the same PO.
"""
