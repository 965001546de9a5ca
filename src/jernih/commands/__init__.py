"""Commands that are long enough for a file of their own; `cli.py` registers them."""
