"""Benchmarks: the world, training beside RLlib and a bare loop, scaling, memory. Run with `make bench`."""
