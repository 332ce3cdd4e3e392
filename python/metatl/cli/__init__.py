"""The commands `metatl` and `metatl-eval`."""
