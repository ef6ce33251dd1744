"""`python -m pyserve`: the same as the command `pyserve`."""

from pyserve.cli import main

if __name__ == "__main__":
    main()
