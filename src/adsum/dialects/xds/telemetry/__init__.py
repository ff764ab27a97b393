"""Reports of xDS clients, and their status: for metrics, logs and the status of the node."""
