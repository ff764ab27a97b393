"""A gateway's certificate: reading, checking, renewal, and warnings before it expires."""
