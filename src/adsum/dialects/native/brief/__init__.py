"""Brief requests: reads, renewals and registrations that are answered without an ASGI task."""
