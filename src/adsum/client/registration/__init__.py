"""Registration: an instance is registered, its leases are renewed, and it is drained and deregistered before its process ends."""
