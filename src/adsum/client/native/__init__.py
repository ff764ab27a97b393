"""The native API as a client speaks it: requests to whichever node answers, and watches over lost connections."""
