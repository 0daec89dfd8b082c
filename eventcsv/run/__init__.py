"""A session, its workers, and what came of them.

`session` is the only one at work on a CSV, `todo` knows which PO is next and `run` what came of each, `pool` has the
worker processes, each of them behind a `reaper` that ends whatever a worker has started, and `process` starts it there.
"""
