"""What scripts/benchmark.py measures: the machine, our generation, and others of the same shape."""
