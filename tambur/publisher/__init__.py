"""The publisher. It needs requests and nothing else."""
