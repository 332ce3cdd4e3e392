"""Ranks of a model, or of anyone's scores, and what a report says of them."""
