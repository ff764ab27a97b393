"""The nodes of one registry: which node keeps which services, and where others reach them."""
