"""`python -m bart_cli` is the `bart` command."""

from bart_cli.cli.app import main

if __name__ == "__main__":
    main()
