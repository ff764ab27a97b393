"""The registry's own authority, the certificates that it signs, and PEM files. Uses `cryptography`."""
