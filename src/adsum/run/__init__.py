"""`adsum run`: runs a program, registers it while it answers, and drains it before it stops."""
