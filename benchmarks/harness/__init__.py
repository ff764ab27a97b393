"""What the benchmarks share: servers to measure, load, and the table of results."""
