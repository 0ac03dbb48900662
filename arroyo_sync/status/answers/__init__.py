"""What the brokers' answers say of a partition, and what they leave untold. Pure.

May import: core, kafka.questions, leaders, observe.
"""
