"""Loads the settings of a command from flags, environment variables and the configuration file."""
