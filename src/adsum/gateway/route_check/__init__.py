"""The route check, which finds the route of a request without a gateway; the order of routes, and path rewrites."""
