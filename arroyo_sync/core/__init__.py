"""The offsets table and its states, the contract of a source, our errors, the log throttle: no Kafka client, no thread.

May import: nothing of ours.
"""
