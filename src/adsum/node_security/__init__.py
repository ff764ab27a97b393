"""What makes a node secure: its keys and certificates on disk, the authority of the registry, and the admin token."""
