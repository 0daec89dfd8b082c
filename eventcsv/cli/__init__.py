"""The command line: `main` runs it, `app` has all commands, and `commands` a module for each.

`options` is what they take, `output` where a result goes and its exit code, `messages` what they say, and `wording` the
words for it; `run_options` and `run_messages` are those of `run`, which has the most of both. `live` shows a job while
it goes on; the rest is what a command needs around it: `log_output`, `function_argument` for the function of a name,
`tracebacks` for an error that nobody expected, results from a pipe in `piped`, and `first_process` for who is the first
one of a container.
"""
