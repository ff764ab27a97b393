"""The streams of xDS clients: requests, subscriptions, the state of each client, and responses."""
