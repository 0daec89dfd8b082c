"""A session, its workers, and what came of them.

`session` is the only one at work on a CSV, `options` what is asked of a run: its `choice` of POs, and in `steering` its
attempts, pace and brake. `todo` knows which PO is next, `claimed` which of them are this host's, `plan` which ones a
run would take, and `run` what came of each. `pool` has the worker processes, each of them behind a `reaper` that ends
whatever a worker has started; `process` starts it there, and `starting` finds out beforehand whether that can be.
"""
