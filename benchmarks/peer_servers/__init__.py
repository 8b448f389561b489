"""The smallest servers that hand what is posted to all subscribers, made of what the peers are."""
