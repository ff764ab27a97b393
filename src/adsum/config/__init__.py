"""The settings of Adsum's programs, one frozen dataclass a table of the configuration file."""
