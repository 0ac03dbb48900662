"""What each leader group has committed, whether it can be, and the remote offset that follows.

May import: core, kafka, kafka.questions.
"""
