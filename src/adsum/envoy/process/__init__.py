"""One Envoy as a child process: its binary, configuration, limits, logs and files."""
