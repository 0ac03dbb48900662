"""Benchmarks beside the peer and the floor: ``python -m tests.benchmarks`` (see ``--help``)."""
