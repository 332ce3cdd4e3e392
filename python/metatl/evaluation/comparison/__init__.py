"""Compare systems with a baseline, over the same users."""
