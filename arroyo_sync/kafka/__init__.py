"""What librdkafka and Arroyo's clients need of us: settings, fatal errors, error callbacks, redaction.

May import: core.
"""
