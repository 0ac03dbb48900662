"""When an operator is told of a fault: ``python -m tests.benchmarks.faults_told`` (see ``--help``)."""
