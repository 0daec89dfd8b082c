"""The CSV on disk, kept what the log says; its backups, checks and progress.

A *base* is a backup from which the log is replayed, the *checkpoint* tells how much of the log is in the CSV, a
result is *late* when its row was added after it, *stale* is a row that was saved without its results.
`job_files` is what there is on disk and what is known of it, with the `checkpoint` and each `backup`; `starting_point`
finds where a fold starts, with `saves` where somebody saved the CSV and `edits` for what that did, `projection` folds
onto it, `publisher` puts the outcome in the CSV's place, and `compactor` does the three under a lock, with a
`compact_result`. `refresh` does so again and again, `session_lock` keeps other sessions away, `retention` says which
backups are kept and `prune` which segments, `progress` tells how far a job is, `first_run` whether its STATUS may mean
something else, and `verify` checks it all.
"""
