"""Serving: a fitted system that answers for new users."""
