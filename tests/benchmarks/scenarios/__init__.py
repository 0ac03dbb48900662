"""What is measured, one file each: ``run(bench)`` does the repetitions and returns what goes into the JSON."""
