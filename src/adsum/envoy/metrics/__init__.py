"""The metrics of a gateway: which stats Envoy keeps, and the listener that serves them."""
