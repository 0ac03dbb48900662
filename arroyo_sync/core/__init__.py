"""The offsets table and its states, a source's contract, our errors, log throttle and guard; no Kafka client or thread.

May import: nothing of ours.
"""
