"""`python -m eventcsv` is the command `eventcsv`."""


def main() -> None:
    """Run the command line."""
    # Here and not above: a spawned worker imports this module first, and needs no command line.
    from eventcsv.cli import main as run  # noqa: PLC0415  # see above

    run()


if __name__ == "__main__":
    main()
