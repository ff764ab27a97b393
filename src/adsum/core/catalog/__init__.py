"""The catalog: changes, snapshots, and the decisions that make changes."""
