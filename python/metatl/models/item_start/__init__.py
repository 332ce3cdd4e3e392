"""Where `tuned` starts: item vectors from the co-occurrence graph, and the recent trend of items."""
