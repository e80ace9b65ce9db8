"""Servers for tests: `hostile` does everything wrong that a server can. The well-behaved one is
`raybench.client.null_server`, which calibration uses too."""
