"""Small, named measurements, each held against a floor that was measured in the same run.

``python -m benchmarks`` runs all in turn, ``python -m benchmarks.NAME --json`` one of them. Figures of different runs
are not to be compared: machines are noisy, and only the ratio to a floor of the same run means anything.
"""
