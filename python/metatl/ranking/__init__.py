"""A fitted model and histories in; ranks and lists of items out."""
