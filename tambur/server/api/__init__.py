"""The server's HTTP routes, without long polling."""
