"""Systems beside a baseline, over the same users."""
