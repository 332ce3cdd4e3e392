"""Run directories and checkpoints: writing and loading."""
