"""Ranking: ranks of targets and lists of items, from a fitted model and histories."""
