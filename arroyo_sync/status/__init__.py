"""The command that looks from outside.

May import: core, kafka, kafka.questions, leaders.commit_log, observe, status.answers.
"""
