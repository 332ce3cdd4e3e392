"""Helpers of all packages: files, arguments, errors of columns, memory, timings."""
