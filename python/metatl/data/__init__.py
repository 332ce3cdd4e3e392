"""Interactions, the cold-start split, and the candidates that a new user's target is ranked among."""
