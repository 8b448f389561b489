"""The Redis broker: several nodes serve the same streams."""
