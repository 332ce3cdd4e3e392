"""From a split to a fitted system: batches, the outer loop, run directories."""
