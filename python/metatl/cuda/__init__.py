"""Training steps and ranking on a CUDA device."""
