"""The native API as a table of operations: the router and the OpenAPI document are derived from it."""
