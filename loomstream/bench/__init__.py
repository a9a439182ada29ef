"""Latency, throughput and cost of models side by side, as their users feel them.

    from loomstream import bench

    report = await bench.measure(["openai:gpt-4o", "anthropic"], runs=10, max_cost_usd="0.50")
    bench.save(report, "monday.json")
    Path("report.html").write_text(bench.html(report))

Contract: honest figures. Rounds are interleaved, so that what drifts hits all alike; intervals stand beside medians;
no difference is claimed that a test does not find; what is simulated says so wherever it appears. A model that fails
is reported in its place and the others go on. Nothing is spent beyond `max_cost_usd`.
"""

from __future__ import annotations

from loomstream.bench.measure import Progress, measure, overhead_us
from loomstream.bench.page import csv_text, html, plots
from loomstream.bench.prompts import DEFAULT_PROMPT, sized_prompt
from loomstream.bench.samples import Connections, Report, Row, Sample, load, save
from loomstream.bench.summary import Summary, Verdict, compare, summary, verdicts

__all__ = (
    "DEFAULT_PROMPT",
    "Connections",
    "Progress",
    "Report",
    "Row",
    "Sample",
    "Summary",
    "Verdict",
    "compare",
    "csv_text",
    "html",
    "load",
    "measure",
    "overhead_us",
    "plots",
    "save",
    "sized_prompt",
    "summary",
    "verdicts",
)
