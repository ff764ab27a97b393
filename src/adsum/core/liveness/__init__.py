"""Liveness: leases, health checks, the guard against mass removal, and the heartbeats of watches."""
