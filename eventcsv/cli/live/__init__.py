"""A job while it goes on.

`monitor` looks at it, `watch` shows what it sees, again and again; `dashboard` draws it, `inline` and `fullscreen` are
where.
"""
