"""What the flow control does with the user's consumer: pauses, waits, rebalances, start positions, a topic made anew.

May import: core, kafka.
"""
