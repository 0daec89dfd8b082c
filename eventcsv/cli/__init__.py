"""The command line: `app` has the commands, `options` what several of them take, `messages` what they say.

`live` shows a job while it goes on; the rest is what a command needs around it: how it logs, how a function is found
by its name, what becomes of an error that nobody expected, results from a pipe, and being the first process of a
container.
"""
