"""Chaos: real processes on a cluster of three brokers, a seeded sequence of faults, and an independent judge.

ingredients   what a run's world is made of, drawn from its seed
world         brokers, topics and processes; `questions`, `wholeness` and `tally` are what the driver knows of them
faults        what is drawn from; `process_faults`, `broker_faults`, `topic_faults` and `commit_log_faults` do it
run           the driver: faults, quiet rounds, the verdict
worker        one process: `followers` and the examples' leader, `snuba_leader`, `producer`, `rubbish`; what it does
              stands in its `journal`
checker       the judge: `evidence` sorts the journals, `alarms` judges what was told
long, soak    many runs; one that lasts
old_behaviour what was wrong before is found
"""
