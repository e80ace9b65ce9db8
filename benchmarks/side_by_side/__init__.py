"""Parts of `benchmarks/side_by_side.py`: the peers, how a process tree is measured, the figures."""
