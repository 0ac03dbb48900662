"""The commit log: its record, its publisher (the leader's side), its reader and source (the follower's side).

May import: core, kafka, leaders.
"""
