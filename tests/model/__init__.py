"""A model of the follower, and a judge that shares no code with the package.

``python -m tests.model --deeper 2`` explores deeper than the test run does.
"""
