"""The streams of xDS clients: requests, what each client has and lacks, and responses."""
