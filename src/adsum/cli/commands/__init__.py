"""The commands of `adsum`, one module a command or a group of related ones."""
