"""Which route takes a request, decided as a gateway decides it, without a gateway."""
