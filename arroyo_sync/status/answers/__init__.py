"""What the brokers' answers say of one partition. Pure.

May import: core, kafka.questions, leaders, observe.
"""
