"""The route configuration: virtual hosts and their route entries."""
