"""Data: sample, explore, modify."""
