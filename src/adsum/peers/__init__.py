"""What the nodes of one registry ask of one another."""
