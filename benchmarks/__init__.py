"""What loomstream costs, beside the floor of this machine in the same run: `python -m benchmarks`."""
