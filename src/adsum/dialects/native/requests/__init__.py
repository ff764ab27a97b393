"""A decoded request, the bounds on its body, and the end of its connection."""
