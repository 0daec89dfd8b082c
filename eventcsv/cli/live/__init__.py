"""A job while it goes on.

`watch` looks at it again and again, `dashboard` draws it, `inline` and `fullscreen` are where.
"""
