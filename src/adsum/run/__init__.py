"""`adsum run`: wraps any program; lists it while it answers, drains it before it stops."""
