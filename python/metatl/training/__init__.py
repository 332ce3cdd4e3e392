"""Training: from a split to a fitted system."""
