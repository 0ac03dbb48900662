"""The follower's process: the factory, the strategy, its partition buffers, the flow control.

May import: core, kafka, observe, sentry, gate.consumer.
"""
