"""`python -m bart_cli` is the `bart` command."""

import os
import sys

from bart_cli.runtime import interrupts


def main() -> None:
    """Run the command, and handle signals that arrive during its import."""
    # A standard stream that the caller closed (`>&-`) is None.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    try:
        interrupts.install()
        from bart_cli.cli.app import main
    except KeyboardInterrupt:
        interrupts.end()
    main()


if __name__ == "__main__":
    main()
