"""Listeners: how gateways accept requests, filter them, log them and answer them themselves."""
