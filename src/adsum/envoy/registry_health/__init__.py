"""A gateway's contact with its registry, and the last good configuration for when there is none."""
