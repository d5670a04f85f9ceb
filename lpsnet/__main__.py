"""The `lpsnet` command, and `python -m lpsnet`."""

import sys


def main() -> None:
    """`lpsnet.cli.main`; Ctrl-C is heeded while its modules are loaded, too."""
    try:
        from lpsnet.cli import main as run
    except KeyboardInterrupt:
        print("lpsnet: stopped. Nothing was begun.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
