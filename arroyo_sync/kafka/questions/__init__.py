"""Every question to the brokers: where partitions end and begin, topics' ids, groups' commits, offsets by time.

May import: core, kafka.
"""
