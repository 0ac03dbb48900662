"""The leader's side of the commit log: what is committed is published.

May import: core, kafka, leaders.commit_log.
"""
