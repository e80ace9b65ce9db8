"""Which settings are worth a look: those that no other one beats on cost and on what users get together.

A point is (cost, loss), both better when smaller. One dominates another if it is nowhere worse and somewhere
better. The frontier (Pareto's) is every point that none dominates.
"""

from __future__ import annotations

from collections.abc import Mapping

Point = tuple[float, float]


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is at least as good as `b` in both, and better in one. Infinite losses are equal."""
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def frontier(points: Mapping[int, Point]) -> list[int]:
    """The keys of the points that none dominates, by rising cost; equal points are all of them there.

    One pass in the order of cost: a point stays if its loss is below every loss before it.
    """
    found: list[int] = []
    best: Point | None = None
    for key in sorted(points, key=lambda k: (*points[k], k)):
        if best is None or points[key][1] < best[1] or points[key] == best:
            found.append(key)
            best = points[key]
    return found


def layers(points: Mapping[int, Point], wanted: int) -> list[int]:
    """The frontier, then the frontier of the rest, and so on until at least `wanted` points are there.
    Whole layers only: whatever is left out is dominated by something in the first.
    """
    rest = dict(points)
    found: list[int] = []
    while rest and len(found) < wanted:
        layer = frontier(rest)
        found += layer
        for key in layer:
            del rest[key]
    return found
