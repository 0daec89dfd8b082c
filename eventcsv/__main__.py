"""`python -m eventcsv` is the command `eventcsv`."""

from eventcsv.cli import main

main()
