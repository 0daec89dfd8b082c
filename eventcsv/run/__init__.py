"""A session, its workers, and what came of them.

`session` is the only one at work on a CSV, `run` knows what there is to do and what came of it, `pool` has the worker
processes, each of them behind a `reaper` that ends whatever a worker has started, and `process` starts it there.
"""
