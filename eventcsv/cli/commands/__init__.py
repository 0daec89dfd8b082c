"""The commands, as `eventcsv --help` lists them: a module for each, or for a few that belong together."""
