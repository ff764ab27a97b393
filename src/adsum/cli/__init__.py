"""The command line `adsum`: one module a group of commands, imported when the command runs."""
