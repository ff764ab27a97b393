"""The encoded resources of a revision. Compiling the next revision costs time only for what changed."""
