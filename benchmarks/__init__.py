"""The benchmarks: Adsum beside its peers, on one machine in one run. Run them with `python -m benchmarks`."""
