"""Searching for the cheapest setting that meets the objectives, with whatever can run one setting once.

    settings → search (few loads for all, more for the promising) → confidence (fresh loads) → found

`trial` runs one setting in the simulator; the search knows only what a trial says.
"""
