"""Floor 3: a run on Ray. Generators as actors, a start barrier, clocks, the monitor, supervision."""
