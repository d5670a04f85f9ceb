"""`python -m lpsnet`: the command line, run by this Python interpreter."""

from lpsnet.cli import main

if __name__ == "__main__":
    main()
