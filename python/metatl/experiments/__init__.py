"""The experiments of the paper and of this repository, and the code that runs them."""
