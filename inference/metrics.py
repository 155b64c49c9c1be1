"""Counters and histograms in Prometheus' text format (exposition format 0.0.4), without a client library."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

from inference.engine import Engine

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, text: str) -> list[str]:
        out = [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
        running = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            out.append(f'{name}_bucket{{le="{bound}"}} {running}')
        return [*out, f"{name}_sum {self.total:.6f}", f"{name}_count {running}"]


@dataclass(slots=True)
class RequestClock:
    """Times of one request: first token, and the mean time of each token after it."""

    start: float = field(default_factory=time.perf_counter)
    first: float | None = None
    last: float = 0.0
    tokens: int = 0

    def saw(self, tokens: int) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.tokens += tokens


class Metrics:
    def __init__(self) -> None:
        self.ttft, self.tpot, self.total = Histogram(), Histogram(), Histogram()
        self.responses: dict[int, int] = {}
        self.finished: dict[str, int] = {}

    def answered(self, status: int) -> None:
        """An HTTP answer has begun."""
        self.responses[status] = self.responses.get(status, 0) + 1

    def done(self, clock: RequestClock, reason: str) -> None:
        self.finished[reason] = self.finished.get(reason, 0) + 1
        if clock.first is not None:
            self.ttft.add(clock.first - clock.start)
            self.total.add(clock.last - clock.start)
            if clock.tokens > 1:
                self.tpot.add((clock.last - clock.first) / (clock.tokens - 1))

    def render(self, engine: Engine, pending: int) -> str:
        """All metrics. Engine numbers are read without a lock: each is one value, a step old at most."""
        s, scheduler, cache = engine.stats, engine.scheduler, engine.scheduler.cache
        drafts = engine.speculator
        rows: list[tuple[str, str, str, float]] = [
            ("requests_pending", "gauge", "Requests accepted and not finished.", pending),
            ("requests_running", "gauge", "Sequences that hold pages.", len(scheduler.running)),
            ("requests_waiting", "gauge", "Sequences in the queue.", len(scheduler.waiting)),
            ("kv_pages", "gauge", "Pages of the KV cache.", cache.pool.count),
            ("kv_pages_free", "gauge", "Pages that are free or can be evicted.", cache.available),
            ("kv_pages_evicted_total", "counter", "Cached pages evicted.", cache.stats.evicted_pages),
            ("prompt_tokens_total", "counter", "Prompt tokens admitted.", cache.stats.prompt_tokens),
            ("cached_tokens_total", "counter", "Prompt tokens from the cache.", cache.stats.cached_tokens),
            ("prefill_tokens_total", "counter", "Prompt tokens computed.", s.prompt_tokens),
            ("decode_tokens_total", "counter", "Decode tokens computed.", s.decode_tokens),
            ("forced_tokens_total", "counter", "Tokens that a grammar forced.", s.forced_tokens),
            ("preemptions_total", "counter", "Sequences preempted.", scheduler.stats.preemptions),
            ("draft_tokens_total", "counter", "Tokens drafted.", drafts.proposed if drafts else 0),
            ("draft_accepted_total", "counter", "Drafted tokens accepted.", drafts.accepted if drafts else 0),
            ("steps_total", "counter", "Engine steps.", s.steps),
            ("forward_seconds_total", "counter", "Seconds in forward passes.", s.forward_seconds),
            ("step_seconds_total", "counter", "Seconds in steps.", s.step_seconds),
        ]
        lines = []
        for name, kind, text, value in rows:
            full = f"toolyard_inference_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {value:g}"]
        for name, label, table in (
            ("responses_total", "code", self.responses),
            ("requests_finished_total", "reason", self.finished),
        ):
            full = f"toolyard_inference_{name}"
            lines += [f"# HELP {full} By {label}.", f"# TYPE {full} counter"]
            assert isinstance(table, dict)
            lines += [f'{full}{{{label}="{key}"}} {count}' for key, count in sorted(table.items())]
        lines += self.ttft.lines("toolyard_inference_ttft_seconds", "Time to the first token.")
        lines += self.tpot.lines("toolyard_inference_tpot_seconds", "Mean time of a token after the first.")
        lines += self.total.lines("toolyard_inference_request_seconds", "Time to the last token.")
        return "\n".join(lines) + "\n"
