"""What is measured: for each part a function for ours, for the limit and for each peer, made by a worker."""
