"""The rules and values of service discovery. Pure: no input, output or clock."""
