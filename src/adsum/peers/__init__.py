"""The requests between the nodes of one registry: forwarded renewals, and the confirmation of drains."""
