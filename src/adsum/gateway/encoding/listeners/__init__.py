"""Listeners, their HTTP filters, access logs and local replies."""
