"""TODO: telemetry."""
