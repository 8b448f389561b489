"""What the server answers over HTTP, apart from long polling."""
