"""What a worker process loads.

A *recorder* checks results and appends them to the log, under a *claim* where hosts share it; the `emit_result` of
`emit` finds it by itself. `values` makes text of whatever a caller has in hand, `rules` makes cells of it, and
`fitting` a line that can be recorded. `serve` is the loop of a worker of `Session.run`, `messages` go between it and
its pool, and `work` is what it does with a PO: it calls a function, on the worker's `event_loop` when that is a
coroutine, or runs a `command`. Light: no Polars, no command line.
"""
