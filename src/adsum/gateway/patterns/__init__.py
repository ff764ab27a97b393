"""Patterns of hosts, regular expressions, and normalized paths, with the meaning that they have at gateways."""
