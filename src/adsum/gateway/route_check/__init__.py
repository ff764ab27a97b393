"""The route check: it finds the route that takes a request, as a gateway does, without a gateway."""
