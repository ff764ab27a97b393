"""The operations of the native API, grouped by what they are about."""
