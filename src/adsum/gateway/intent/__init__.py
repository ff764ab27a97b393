"""What operators declare for gateways: routes and upstreams. Every value is valid from construction on."""
