"""The encoded resources of a revision, compiled from the catalog and the intent at the cost of what changed."""
