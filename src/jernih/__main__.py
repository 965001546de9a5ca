"""Lets ``python -m jernih`` run the command line."""

from jernih.cli import main

if __name__ == "__main__":
    main()
