"""The contenders, each a program of its own, so that its CPU time and memory are its own.

They run in two environments (this project's and the peer's), so they import nothing of this package but each other,
and nothing beyond the standard library, confluent-kafka and the Arroyo of their environment.
"""
