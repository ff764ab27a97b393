"""What xDS clients report, and what is known of them: for metrics, logs and the status of the node."""
