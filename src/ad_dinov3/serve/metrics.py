"""What Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ad_dinov3 import __version__
from ad_dinov3.serve.batching import BatchTimes
from ad_dinov3.serve.judge import Failed, Judge, Judged

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SCORES = tuple(step / 20 for step in range(1, 21))
_SIZES = (1, 2, 4, 8, 16, 32, 64)
REASONS = {
    400: "malformed",
    401: "key",
    403: "forbidden",
    404: "unknown",
    405: "method",
    408: "slow",
    411: "length",
    413: "size",
    415: "kind",
    422: "image or wish",
    503: "busy",
}
"""What a status of a refusal is called in ``ad_dinov3_refused_total``."""


class Metrics:
    """Counts and durations of one process; names of files and images never become labels."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self._requests = Counter("ad_dinov3_requests", "Answered requests", ["route", "code"], registry=own)
        self._refused = Counter("ad_dinov3_refused", "Refused requests", ["reason"], registry=own)
        self._images = Counter("ad_dinov3_images", "Images by decision", ["model", "decision"], registry=own)
        self._request_seconds = Histogram(
            "ad_dinov3_request_seconds", "Seconds of a request", ["route"], registry=own, buckets=_SECONDS
        )
        self._score_seconds = Histogram(
            "ad_dinov3_score_seconds", "Seconds of a call of a model", registry=own, buckets=_SECONDS
        )
        self._queue_seconds = Histogram(
            "ad_dinov3_queue_seconds", "Seconds that an image waited for a model", registry=own, buckets=_SECONDS
        )
        self._batch_size = Histogram(
            "ad_dinov3_batch_size", "Images in a call of a model", registry=own, buckets=_SIZES
        )
        self._score = Histogram(
            "ad_dinov3_anomaly_score",
            "Image scores: a line that drifts shows here",
            ["model"],
            registry=own,
            buckets=_SCORES,
        )

    def watch(self, judge: Judge) -> None:
        """Tell of the images in hand and of the models, too, as they are when Prometheus asks."""
        self._registry.register(_Now(judge))

    def batch(self, times: BatchTimes) -> None:
        """Take note of a call of a model."""
        self._score_seconds.observe(times.seconds)
        self._batch_size.observe(len(times.waited))
        for seconds in times.waited:
            self._queue_seconds.observe(seconds)

    def judged(self, image: Judged | Failed) -> None:
        """Take note of an image that has been decided on, or failed."""
        if isinstance(image, Failed):
            self._images.labels(image.model, "failed").inc()
            return
        self._images.labels(image.model, "anomalous" if image.prediction.is_anomalous else "normal").inc()
        self._score.labels(image.model).observe(image.prediction.score)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Take note of an answered request; ``route`` is the template of its address."""
        self._requests.labels(route, status).inc()
        self._request_seconds.labels(route).observe(seconds)
        if 400 <= status < 500 or status == 503:
            self._refused.labels(REASONS.get(status, "other")).inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class _Now(Collector):
    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        in_hand = GaugeMetricFamily("ad_dinov3_in_hand", "Images in hand")
        in_hand.add_metric([], self._judge.places.taken)
        yield in_hand
        info = GaugeMetricFamily("ad_dinov3_info", "What is served", labels=["version", "model", "fingerprint"])
        odds = GaugeMetricFamily("ad_dinov3_drift_odds", "Decades of odds that images have changed", labels=["model"])
        changed = GaugeMetricFamily("ad_dinov3_has_changed", "Whether images have changed", labels=["model"])
        for name in self._judge.models.names:
            model = self._judge.models.model(name)
            info.add_metric([__version__, name, model.fingerprint], 1)
            if model.drift is not None:
                odds.add_metric([name], model.drift.drift.odds)
                changed.add_metric([name], model.drift.drift.has_changed)
        yield from (info, odds, changed)
