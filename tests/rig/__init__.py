"""A server under test and raw clients for it, for tests/soak and tests/stress: the standard library, nothing else."""
