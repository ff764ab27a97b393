"""The registration of an instance: renewed while its process lives, drained and deregistered before it ends."""
