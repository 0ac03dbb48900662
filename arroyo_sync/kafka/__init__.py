"""What librdkafka and Arroyo's clients need of us: settings, fatal errors, questions to brokers, redaction.

May import: core.
"""
