"""What is known, for Prometheus. The gauges are read off the table when they are asked for, so those of a container go with it.

Labels are bounded: ids of containers that are there, and words of ours; AppArmor's profile names, one a container, in which bytes that
are no UTF-8 become question marks.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from rundlet import __version__
from rundlet.confine.watch.table import STATUSES, Look, Table

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
VERDICTS = ("holds", "differs", "unknown")


class Metrics:
    """Of a table; `looked` is to be called with every look that was taken."""

    def __init__(self, table: Table) -> None:
        self.table = table
        disable_created_metrics()  # type: ignore[no-untyped-call]  # process_start_time_seconds says the same
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.seconds = Histogram(
            "rundlet_verification_duration_seconds", "Time that one verification of a container took.",
            buckets=SECONDS, registry=self.registry,
        )
        self.verifications = Counter(
            "rundlet_verifications", "Verifications by their outcome.", ["result"], registry=self.registry,
        )
        for verdict in VERDICTS:
            self.verifications.labels(verdict)
        self.registry.register(self)

    def looked(self, look: Look) -> None:
        """Counts a look, where something was verified."""
        if look.verdict:
            self.seconds.observe(look.seconds)
            self.verifications.labels(look.verdict).inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that the Accept header prefers."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect in order to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges of the table."""
        rows = sorted(self.table.rows.values(), key=lambda row: row.id)
        build = GaugeMetricFamily("rundlet_build_info", "The version of rundlet that watches.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        status = GaugeMetricFamily("rundlet_containers", "Containers by status.", labels=["status"])
        for name in STATUSES:
            status.add_metric([name], sum(row.look.status == name for row in rows))
        yield status
        verified = GaugeMetricFamily(
            "rundlet_container_verified", "1 for what the last verification of a container came to, 0 for the rest.",
            labels=["container", "result"],
        )
        drift = GaugeMetricFamily(
            "rundlet_container_drift", "Differences between a container and its plan, by what differs.", labels=["container", "field"]
        )
        label = GaugeMetricFamily(
            "rundlet_container_label_info", "The AppArmor label of a container's first process.", labels=["container", "profile", "mode"]
        )
        last = GaugeMetricFamily(
            "rundlet_container_last_verified_timestamp_seconds", "When a container was verified last.", labels=["container"]
        )
        for row in rows:
            look = row.look
            if look.label[0]:
                label.add_metric([row.id, *(word.encode("utf-8", "replace").decode() for word in look.label)], 1)
            if not look.verdict:
                continue
            last.add_metric([row.id], row.time)
            for verdict in VERDICTS:
                verified.add_metric([row.id, verdict], look.verdict == verdict)
            for field, _ in look.checks:
                drift.add_metric([row.id, field], sum(found.field == field for found in look.drifts))
        yield from (verified, drift, label, last)
        yield GaugeMetricFamily("rundlet_denials_readable", "1 where a log of denials can be read.", int(self.table.counts_denials))
        denials = CounterMetricFamily(
            "rundlet_denials", "Denials since watch began; container is empty where none is known.", labels=["container", "layer"]
        )
        for layer, count in sorted(self.table.elsewhere.items()):
            denials.add_metric(["", layer], count)
        for row in rows:
            for layer, count in sorted(row.denials.items()):
                denials.add_metric([row.id, layer], count)
        yield denials
