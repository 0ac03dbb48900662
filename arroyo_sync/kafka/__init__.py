"""What librdkafka and Arroyo's clients need of us: settings, their making, fatal errors, error callbacks, redaction.

May import: core.
"""
