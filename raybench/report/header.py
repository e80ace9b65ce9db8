"""The head of a report: what was measured, with what, under which load."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from raybench.analysis.figures import Header, Summary
from raybench.report.blocks import Lines, Pairs, Section
from raybench.report.units import binary_bytes, duration, number
from raybench.schema import LoadKind


def section(summary: Summary) -> Section:
    """First of every report."""
    h = summary.header
    rows = [
        ("run", f"{h.name}, {h.status}, {_started(h)}"),
        ("measured", _measured(h)),
        ("engine", _engine(h)),
        ("server", _where(h)),
        ("machine", _machine(h)),
        *_deployment(h),
        ("load", _load(h)),
        ("prompts", _request(h)),
        ("generators", _generators(h)),
        ("schedule", f"sha256 {h.schedule_sha256}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in h.versions.items())),
        ("floor", _floor(h)),
        ("rows", _rows(summary)),
    ]
    warnings = _warnings(h)
    blocks = [Lines(tuple(warnings))] * bool(warnings) + [Pairs(tuple((k, v) for k, v in rows if v))]
    if h.problems:
        blocks.append(Lines(tuple(f"problem: {p}" for p in h.problems)))
    return Section(f"raybench report: {h.name}", tuple(blocks))


def _warnings(h: Header) -> list[str]:
    """What nobody may miss: figures of a model are not figures of a machine."""
    engine = str(h.measured.get("engine", ""))
    found = []
    if h.measured.get("simulated"):
        found.append("*** SIMULATED: no request was sent; every figure comes from the model. ***")
    elif "emulated" in engine:
        found.append("*** EMULATED ENGINE: its speed is a model's, not a GPU's. ***")
    return found


def _started(h: Header) -> str:
    if not h.created_unix_s:
        return "start unknown"
    return "started " + time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(h.created_unix_s))


_OWN_ROWS = (
    "model", "engine", "preset", "simulated", "replica", "autoscaling", "slots_per_replica", "engine_model",
    "engines", "machine", "url", "placement",
)  # fmt: skip
"""What `measured` says elsewhere than in a list of whatever else it says."""


def _measured(h: Header) -> str:
    m = h.measured
    if not m:
        return ""
    preset = f" (preset {m['preset']})" if m.get("preset") else ""
    parts = [f"{m.get('model', 'unknown model')} on {m.get('engine', 'an unknown engine')}{preset}"]
    rest = ((k, v) for k, v in m.items() if k not in _OWN_ROWS and v not in (None, "", {}, []))
    return ", ".join([*parts, *(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in rest)])


def _engine(h: Header) -> str:
    """What the engine says of itself, or the model's figures; their source is in the manifest."""
    engines = h.measured.get("engines") or []
    if engines:
        said = {k: v for k, v in engines[0].items() if k != "replica"}
        return _plain(said).strip("()")
    model = h.measured.get("engine_model")
    if not isinstance(model, Mapping):
        return ""
    further = model.get("step_per_sequence_s")
    return (
        f"start-up {duration(model.get('startup_s'))}, "
        f"prefill {number(model['prefill_tokens_per_s'])} tokens/s, "
        f"a step {duration(model.get('step_base_s'))}"
        + (f" and {duration(further)} for each further sequence" if further else "")
    )


def _where(h: Header) -> str:
    url = h.measured.get("url") or ""
    text = " ".join(url) if isinstance(url, list) else str(url)
    place = str(h.measured.get("placement") or "")
    return ", ".join(part for part in (text, place) if part)


def _machine(h: Header) -> str:
    machine = h.measured.get("machine") or {}
    names = (("processor", "{}"), ("cores", "{} cores"), ("system", "{}"))
    return ", ".join(form.format(machine[key]) for key, form in names if machine.get(key))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            "(" + ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if v not in (None, "", {}, [])) + ")"
        )
    if isinstance(value, list):
        return " ".join(_plain(v) for v in value)
    return number(value) if isinstance(value, float) else str(value)


def _deployment(h: Header) -> list[tuple[str, str]]:
    deployment = h.scenario.get("deployment")
    if not isinstance(deployment, Mapping):
        return []
    rows = []
    scaling, replica = deployment.get("autoscaling") or {}, deployment.get("replica") or {}
    if replica:
        memory = replica.get("memory")
        shown = {**replica, "memory": binary_bytes(memory) if isinstance(memory, int) else memory}
        rows.append(("replica", _plain({**shown, "slots": deployment.get("slots_per_replica")}).strip("()")))
    if scaling:
        rows.append(("autoscaling", _autoscaling(scaling)))
    return rows


def _autoscaling(settings: Mapping[str, Any]) -> str:
    """The limits and the policy, then every setting by its own name; those that are off are left out."""
    limits = ("min_replicas", "max_replicas", "policy")
    rest = []
    for key, v in {**settings, **(settings.get("policy_options") or {})}.items():
        if key not in limits and v is not None and v is not False and isinstance(v, int | float | str):
            is_time = key.endswith("window") and isinstance(v, int | float)
            shown = duration(float(v)) if is_time else _plain(v)
            rest.append(f"{key.replace('_', ' ')} {shown}")
    policy = str(settings.get("policy")).replace("_", " ")
    who = f"{settings.get('min_replicas')} to {settings.get('max_replicas')} replicas by {policy}"
    return ": ".join([who, ", ".join(rest)] if rest else [who])


def _load(h: Header) -> str:
    load = h.scenario.get("load") or {}
    stages = [
        f"{_arrival(s.get('arrival') or {})} for {duration(s.get('duration'))}"
        for s in load.get("stages") or []
    ]
    if len(stages) > 4:
        stages = [*stages[:3], f"and {len(stages) - 3} more stages"]
    text = f"{h.load_kind}: {', then '.join(stages)}" if stages else str(h.load_kind)
    if h.load_kind is LoadKind.CLOSED:
        text += " (no schedule: latencies count from sent)"
    return text


def _arrival(arrival: Mapping[str, Any]) -> str:
    process = str(arrival.get("process", "arrivals"))
    if arrival.get("interval") is not None:
        return f"{process}, one every {duration(arrival['interval'])}"
    rest = [
        f"{k.replace('_', ' ')} {number(v) if isinstance(v, int | float) else v}"
        for k, v in arrival.items()
        if k not in ("process", "rate", "interval") and v is not None
    ]
    rate = [f"{number(arrival['rate'])}/s"] if isinstance(arrival.get("rate"), int | float) else []
    return ", ".join([" ".join([process, *rate]), *rest])


def _request(h: Header) -> str:
    request = (h.scenario.get("load") or {}).get("request") or {}
    text = str(request.get("prompt") or request.get("prompts") or "")
    shown = repr(text if len(text) <= 60 else text[:57] + "...") if text else ""
    keys = ("max_tokens", "temperature", "top_p")
    parts = [shown] + [f"{k} {request[k]}" for k in keys if request.get(k) is not None]
    parts += [f"timeout {duration(request['timeout'])}"] if request.get("timeout") else []
    return ", ".join(p for p in parts if p)


def _generators(h: Header) -> str:
    text = str(h.generators)
    if h.hosts:
        text += f" on {len(h.hosts)} host{'s' * (len(h.hosts) > 1)} ({', '.join(h.hosts[:4])})"
    if h.clock_uncertainty_s is not None:
        text += f", clocks within {duration(h.clock_uncertainty_s)} of the coordinator's"
    return text


def _floor(h: Header) -> str:
    """What the client itself cannot do better than, from calibration; nothing where no client was."""
    c = h.calibration
    if h.measured.get("simulated"):
        return ""
    if not c:
        return "not calibrated; run `raybench calibrate`"
    try:
        text = (
            f"{number(round(c['requests_per_s']))} requests/s or {number(round(c['chunks_per_s']))} chunks/s "
            f"a generator, "
            f"{duration(c['cpu_s_per_request'])} CPU a request, "
            f"{duration(c['cpu_s_per_1000_chunks'])} per 1,000 chunks, "
            f"lateness p99 {duration(c['lateness_p99_ns'] / 1e9)} at {number(c['rate_per_s'])}/s, "
            f"TTFT within {duration(c['ttft_error_p50_ns'] / 1e9)} "
            f"(p99 {duration(c['ttft_error_p99_ns'] / 1e9)}), "
            f"inter-chunk within {duration(c['gap_error_p50_ns'] / 1e9)} "
            f"(p99 {duration(c['gap_error_p99_ns'] / 1e9)}); "
            f"{c['generators']} at once on {c['hostname']}, "
            + time.strftime("%Y-%m-%d", time.gmtime(c["measured_unix_s"]))
        )
    except (KeyError, TypeError):  # another version's
        return _plain(c).strip("()")
    elsewhere = [host for host in h.hosts if host != c["hostname"]]
    return text + (f"; not of {', '.join(elsewhere[:4])}, where generators ran" if elsewhere else "")


def _rows(summary: Summary) -> str:
    s = summary.selected
    where = []
    if s.window_s is not None:
        until = "on" if s.window_s[1] is None else f"to {s.window_s[1]:g} s"
        where.append(f"window from {s.window_s[0]:g} s {until}")
    if s.phase is not None:
        default = "; the default, as the scenario has a warm-up or cool-down" if s.phase_is_default else ""
        where.append(f"phase {s.phase} only{default}")
    span = f"; rates over {duration(s.span_s)}, {s.span_meaning}" if s.span_s else ""
    return f"{number(s.rows)} requests, {', '.join(where) or 'all of the run'}{span}"
