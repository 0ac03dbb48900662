"""The leader's side of the commit log: what is committed is published.

May import: core, kafka, kafka.questions, leaders.commit_log.
"""
