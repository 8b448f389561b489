"""The publisher, which needs requests alone."""
