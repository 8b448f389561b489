"""The console: a page that shows what a server does, and its metrics for Prometheus."""
