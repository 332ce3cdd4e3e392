"""Sizes of the random data of the benchmarks."""

NUM_ITEMS = 20_000
NUM_USERS = 20_000
DIM = 100
K = 3
