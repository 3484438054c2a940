"""One module for each thing that scripts/benchmark.py measures: `measure(report, args)`."""
