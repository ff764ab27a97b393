"""Keeping an instance registered: leases renewed, drained and deregistered before its process ends."""
