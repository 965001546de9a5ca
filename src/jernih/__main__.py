"""Lets ``python -m jernih`` run the command line."""

from jernih.cli import main

main()
