"""What is done with the user's consumer: pauses, waits, rebalances and their protocol, start positions, a new topic.

May import: core, kafka.
"""
