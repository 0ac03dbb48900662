"""The parts of ``quickstart.py``: the broker, the pipelines, the journal that they are judged by, and the view."""
