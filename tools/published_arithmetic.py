"""What the published figures give away, by arithmetic: a section of docs/published.md, its sums made here."""

from __future__ import annotations

from published_model import PROFILES, QUICK_S, published, reference

CUT_S = 300.0
SLOWEST_TOKENS_PER_S = 63.0


def section() -> str:
    whole = reference()
    of = {p: published(p, whole).raw for p in PROFILES}
    stated = {p: raw["published"] for p, raw in of.items()}
    most_tokens, (slow, fast) = whole["model_attributes"]["max_tokens"], whole["throughput_tokens_per_s"]
    most_s = most_tokens / SLOWEST_TOKENS_PER_S
    rows = []
    for p, raw in of.items():
        s, d = stated[p], raw["derived"]
        duration_s, interval_s = raw["duration_s"], raw["request_interval_s"]
        planned = duration_s // interval_s
        product = s["total_s"] * s["requests_per_s"]
        rows.append(
            f"| {p} | {duration_s} s / {interval_s} s = {planned} "
            f"| {s['total_s']:.1f} s × {s['requests_per_s']}/s = {product:.1f} "
            f"| {d['sent_requests']} | {d['sent_requests'] / planned:.0%} |"
        )
    six, fifteen, thirty = stated["every-6s"], stated["every-15s"], stated["every-30s"]
    sent = {p: raw["derived"]["sent_requests"] for p, raw in of.items()}
    answered = {p: raw["derived"]["answered"] for p, raw in of.items()}
    load_s = of["every-6s"]["duration_s"]
    latency_s = six["average_s"] * answered["every-6s"]
    service_s = 2 * six["total_s"] / answered["every-6s"]
    full_kib = size(thirty["size_per_request"])
    full = {p: size(stated[p]["total_data"]) / full_kib for p in PROFILES}
    quick_rank = int(0.10 * answered["every-15s"])
    p25_rank = int(0.25 * answered["every-15s"])
    bars = list(fifteen["histogram"].values())
    quick_bars = bars[0] + bars[1]
    cut_at_least = of["every-15s"]["derived"]["cut_at_300s"][0]
    short = {p: answered[p] - full[p] for p in PROFILES}
    interval = of["every-15s"]["request_interval_s"]
    head = ["| profile | planned | total × rate | sent | of the plan |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *rows])
    return f"""
## What the figures give away

**Requests sent** are total time times requests per second. Two of the three loads were not the stated ones:

{table}

raybench's own verdict on both would have been INVALID: 99% of the plan must be sent.

**The client was capped.** In every-6s answers took {six["average_s"]:.1f} s on average, {latency_s:,.0f} s
together. Over the {load_s:,} s of sending that is {latency_s:,.0f} / {load_s:,} = {latency_s / load_s:.1f}
requests in flight; over the whole {six["total_s"]:,.0f} s, {latency_s / six["total_s"]:.1f}. A client that
sends one request every 6 s whatever happens would have had {CUT_S:.0f} / 6 = {CUT_S / 6:.0f} in flight by the
time the first were cut.

**Every latency beyond {most_s:.0f} s is waiting**: {most_tokens:,} tokens at {SLOWEST_TOKENS_PER_S:.0f}
tokens/s take {most_s:.1f} s, and no answer may have more. The full speed of a single stream, {slow} to {fast}
tokens/s in every profile, under a queue of a dozen requests, means that each replica served one request at a
time.

**An answer took at most {service_s:.1f} s to make on average**: 2 replicas × {six["total_s"]:.1f} s /
{answered["every-6s"]} answers, if both were up throughout and went on with what had been cut.

**A gateway cut requests off**: p75 to p99.99 of every-15s and every-6s lie between
{fifteen["percentiles"][75]:.2f} and {six["percentiles"][99.99]:.2f} s. They had an HTTP status, so oha counts
them as successes. So the answers were hardly streamed: a stream that is cut has begun with a status of 200,
and its end without its last chunk is an error to oha.

**How many were cut** shows in the sizes. Every answer of every-30s is complete, {thirty["size_per_request"]}
each. every-6s has {six["total_data"]}, enough for {full["every-6s"]:.0f} such answers of
{answered["every-6s"]}: {short["every-6s"]:.0f} were short, {short["every-6s"] / answered["every-6s"]:.0%}.
every-15s has {fifteen["total_data"]}, for {full["every-15s"]:.0f} of {answered["every-15s"]}:
{short["every-15s"]:.0f} were short, of which {p25_rank} or more were quick (below) and the rest cut.

**Requests were refused in every-15s.** oha's percentile p of n values is `sorted[floor(p n)]`: p10 is value
number {quick_rank + 1}, so {quick_rank + 1} answers came within {QUICK_S} s, in which no model writes more
than {QUICK_S * 65:.0f} tokens. p25, {fifteen["percentiles"][25]} s, is value number {p25_rank + 1}. The
histogram has {quick_bars} answers up to 30.4 s and {bars[2]} from there to 60.4 s: what was quick was not the
short end of anything.

**The refusals last as long as a cold start.** No request was refused in the other two profiles. At one
request every {interval} s, {p25_rank} to {quick_bars} quick answers in a row take {p25_rank * interval} to
{quick_bars * interval} s: nine or ten minutes, in which a node can be found, an image pulled and 16 GB of
weights read. Spread over the run they would have left the other requests
{2400 / (160 - quick_bars):.0f} s apart on average. Two replicas, at {service_s / 2:.0f} s a request, keep up
with that; but at least {cut_at_least} of those others were cut.

**One request of every-15s ended without a status**: {sent["every-15s"]} sent,
{fifteen["success_rate_pct"]}% of them counted as successes, {answered["every-15s"]} answers."""


def size(text: str) -> float:
    """`665.91 KiB` in KiB."""
    number, unit = text.split()
    if unit != "KiB":
        raise ValueError(f"{text}: a size in KiB was expected")
    return float(number)
