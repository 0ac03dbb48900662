"""Snapshots, stalls, problems, metrics and the monitor: values in, verdicts out.

May import: core.
"""
