"""The client side of the native API: requests to any node that answers, and watches that survive lost connections."""
