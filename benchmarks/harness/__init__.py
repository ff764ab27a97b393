"""The shared parts of the benchmarks: servers to measure, load, and the table of results."""
