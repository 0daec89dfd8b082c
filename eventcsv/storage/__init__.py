"""Every call that touches a file.

`files` has them all, one system call each, behind the class `Storage`, so that tests can fail each of them: opening
what is ours and nothing else, writing beside and renaming, locks, syncs. `rights` says who may read and write a file
that is made like another one, `naming` what the files of a job are called, `obstacles` what keeps a CSV from being
replaced, `network` which file systems are on another machine. Light: no Polars, no command line.
"""
