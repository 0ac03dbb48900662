"""Chaos: real processes on a cluster of three brokers, a seeded sequence of faults, and an independent judge."""
