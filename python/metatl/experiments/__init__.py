"""The published experiments as data, and what runs them."""
