"""Services as JSON pages that are encoded once per change, and the fast path that serves them."""
