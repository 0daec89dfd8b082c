"""The command line: `main` runs it, `app` has all commands, and `commands` a module for each.

`options` is what they take, `output` where a result goes and its exit code, `messages` what they say, and `wording` the
words for it; `run_options` and `run_messages` are those of `run`, which has the most of both. `live` shows a job while
it goes on; the rest is what a command needs around it: how it logs, how a function is found by its name, what becomes
of an error that nobody expected, results from a pipe, and being the first process of a container.
"""
