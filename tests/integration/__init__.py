"""A real Kafka for tests, benchmarks and chaos runs, and the tests that run on it."""
