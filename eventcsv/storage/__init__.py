"""Every call that touches a file.

`system` has the calls of the system, one a method, so that tests can fail each of them; `files` makes a `Storage` of
them: opening what is ours and nothing else, reading, writing beside and renaming. `locks` has the sidecar locks, and
who holds one; `output` a file that people asked for. `rights` says who may read and write a file that is made like
another one, `naming` what the files of a job are called, `obstacles` what keeps a CSV from being replaced, `network`
which file systems are on another machine, `forks` what a forked child begins again. Light: no Polars, no command line.
"""
