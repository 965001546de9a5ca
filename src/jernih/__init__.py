"""Jernih makes attacked images clear again."""
