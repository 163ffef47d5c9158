"""Small, named measurements, each compared with a floor that was measured in the same run.

``python -m benchmarks`` runs all of them in turn, ``python -m benchmarks.NAME --json`` one of them. Do not compare
figures of different runs: machines are noisy, and only the ratio to a floor of the same run means anything.
"""
