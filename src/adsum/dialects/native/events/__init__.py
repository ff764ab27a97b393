"""The events of a watch, and its heartbeats."""
