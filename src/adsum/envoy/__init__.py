"""One Envoy and its life: found, told where the registry is, kept up, replaced without a gap, drained, ended."""
