"""Evaluate the scores, embeddings or ranked lists of any model."""
