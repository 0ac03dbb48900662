"""The commit log: its record, its reader and source (the follower's side); the leader's side is a folder of its own.

May import: core, kafka, kafka.questions, leaders.
"""
