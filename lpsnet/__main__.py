"""`python -m lpsnet`: the command line of the interpreter at hand."""

from lpsnet.cli import main

if __name__ == "__main__":
    main()
