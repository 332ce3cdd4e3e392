"""Readers of files: interactions and tables."""
