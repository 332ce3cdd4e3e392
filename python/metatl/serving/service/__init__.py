"""The HTTP service of a recommender: `metatl serve`."""
