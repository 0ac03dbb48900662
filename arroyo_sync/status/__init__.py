"""The command that looks from outside.

May import: core, kafka, leaders.commit_log, observe.
"""
