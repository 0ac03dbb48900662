"""What is done with the user's consumer: pauses, waits, rebalances, start positions, a new topic, its cluster's id.

May import: core, kafka.
"""
