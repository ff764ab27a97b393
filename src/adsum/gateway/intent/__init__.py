"""Routes and upstreams that operators declare for gateways. Constructors accept valid values only."""
