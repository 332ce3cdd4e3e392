"""Initial item vectors from the co-occurrence graph, and the recent trend of each item."""
