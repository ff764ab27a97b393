"""How gateways read and match paths, hosts and regular expressions."""
