"""Every benchmark: what it measures, and under which conditions."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass

from bench.row import Row, judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark. Its modules have `rows(quick) -> list` each."""

    name: str
    what: str
    modules: tuple[str, ...]
    peers: str = "none"
    durability: str = "nothing is stored"
    sizes: str
    concurrency: str = "one thread"
    limit_s: int = 180
    """It is ended when it takes longer."""

    def rows(self, quick: bool) -> list[Row]:
        """Measure, in this process."""
        return [judged(row) for module in self.modules for row in importlib.import_module(module).rows(quick)]

    def conditions(self) -> dict[str, str]:
        """For the record."""
        return {key: str(value) for key, value in asdict(self).items() if key not in ("modules", "limit_s")}


SERVER_AND_LOAD = "server on one core, load on another"

BENCHMARKS = (
    Benchmark(
        name="pick",
        what="pick one of 1,000 endpoints; make the picker anew",
        modules=("bench.micro.pick",),
        peers="an empty Cython method call in the same loop; uhashring; random.choices",
        sizes="1,000 endpoints",
    ),
    Benchmark(
        name="chain",
        what="all that is done around a call: limits, breakers, the pick, counts, and the same again at its end",
        modules=("bench.micro.chain",),
        peers="an empty Cython method call in the same loop",
        sizes="1,000 endpoints, each with a breaker; 16 calls in flight",
    ),
    Benchmark(
        name="breaker",
        what="a breaker around a call, both readings of the clock included; what else stands around one",
        modules=("bench.micro.breaker", "bench.micro.guards"),
        peers="an empty Cython method call in the same loop; pybreaker",
        sizes="windows of 100 calls or 100 s; 1,000 hosts",
    ),
    Benchmark(
        name="wire",
        what="scan publish requests, and events in JSON; recognise repeats, by ids and by numbers; read what is saved",
        modules=(
            "bench.micro.wire",
            "bench.micro.jsontext",
            "bench.micro.dedupe",
            "bench.micro.publish",
            "bench.micro.saved",
        ),
        peers="protobuf with a Python loop; json.loads; OrderedDict; ids for numbers",
        sizes="1 and 1,000 events of 200 bytes; JSON of 150 bytes to 100 kB; 1,000,000 ids; an instance of 150 bytes",
    ),
    Benchmark(
        name="journal",
        what="append to segment files, open them after SIGKILL",
        modules=("bench.micro.journal",),
        durability="FSYNCED",
        sizes="batches of 1,000 x 200 bytes, up to 10 M events",
        concurrency="8 batches in flight",
    ),
    Benchmark(
        name="restart",
        what="SIGKILL under load, then a start until Resolve and Fetch are answered, alone and beside many subscriptions",
        modules=("bench.load.restart",),
        durability="FSYNCED",
        sizes="100,000 instances, 10 M events of 200 bytes, 1,000,000 ids, 10,000 open deliveries; 1,000 subscriptions",
        concurrency="traffic from 4 threads until the SIGKILL",
        limit_s=900,
    ),
    Benchmark(
        name="resolve",
        what="unary Resolve",
        modules=("bench.load.resolve",),
        peers="the same servicer on grpc.aio, without and with TLS; etcd: serializable Range",
        sizes="3 instances; etcd answers as many bytes",
        concurrency=f"1 and 8 connections x 50 streams; {SERVER_AND_LOAD}",
    ),
    Benchmark(
        name="register",
        what="Register of new instances",
        modules=("bench.load.register",),
        peers="etcd: Put",
        durability="FSYNCED; etcd at its default, which syncs",
        sizes="one instance a call; etcd is given as many bytes",
        concurrency=f"8 connections x 50 streams; {SERVER_AND_LOAD}",
    ),
    Benchmark(
        name="keepalive",
        what="leases kept alive over streams: the server's CPU, and memory an instance",
        modules=("bench.load.keepalive",),
        durability="no disk is touched by a keep-alive",
        sizes="100,000 leases on 1,000 connections, 10,000 leases on 10,000 connections; TTL 10 s",
        concurrency=SERVER_AND_LOAD,
        limit_s=480,
    ),
    Benchmark(
        name="idle",
        what="connections that have asked something once and wait: the server's memory",
        modules=("bench.load.idle",),
        peers="the same servicer on grpc.aio",
        sizes="one Resolve on each connection",
        concurrency=f"10,000 connections; {SERVER_AND_LOAD}",
    ),
    Benchmark(
        name="watch-storm",
        what="one change of the registry told to many watches",
        modules=("bench.load.storm",),
        durability="FSYNCED: the change is durable before it is told",
        sizes="10,000 watches of one service",
        concurrency=f"1,000 connections; {SERVER_AND_LOAD}",
    ),
    Benchmark(
        name="publish",
        what="durable publishes in batches over the network",
        modules=("bench.load.publish",),
        peers="JetStream on files, at its default and at sync_interval: always; Redis Streams at always",
        durability="FSYNCED",
        sizes="batches of 1,000 x 200 bytes",
        concurrency=f"8 batches in flight; {SERVER_AND_LOAD}",
        limit_s=240,
    ),
    Benchmark(
        name="subscribe",
        what="fan-out to few and to many subscribers, as fast as it goes and at a tenth of that; who takes a topic",
        modules=("bench.micro.fanout", "bench.load.fanout"),
        peers="core NATS; asking each filter",
        durability="MEMORY",
        sizes="events of 200 bytes; 1,000 filters",
        concurrency=f"10 and 1,000 connections, one subscription each; {SERVER_AND_LOAD}",
        limit_s=300,
    ),
    Benchmark(
        name="consume",
        what="a durable subscription in order by key, drained through the Python SDK with an empty handler",
        modules=("bench.load.consume",),
        peers="nats-py: a durable pull consumer of JetStream on files, explicit acknowledgements",
        durability="FSYNCED",
        sizes="30,000 events of 200 bytes, 1,000 keys",
        concurrency=f"one Python process on asyncio, 256 deliveries on their way; {SERVER_AND_LOAD}",
    ),
    Benchmark(
        name="latency",
        what="from publish to delivery at 1,000 events a second, one event a request, each acknowledged",
        modules=("bench.load.latency",),
        peers="JetStream on files at sync_interval: always, durable push consumer",
        durability="FSYNCED",
        sizes="events of 200 bytes",
        concurrency=f"one publisher, one durable subscription, the same C client for both sides; {SERVER_AND_LOAD}",
    ),
    Benchmark(
        name="kill-to-last-call",
        what="an instance gets SIGKILL or SIGSTOP while the SDK's callers call it",
        modules=("bench.load.kill",),
        durability="FSYNCED",
        sizes="4 instances, TTL 3 s",
        concurrency="8 callers of one channel",
    ),
)


def find(names: tuple[str, ...]) -> tuple[Benchmark, ...]:
    """The benchmarks of these names, in the catalogue's order; all for none. KeyError with those that are unknown."""
    unknown = sorted(set(names) - {benchmark.name for benchmark in BENCHMARKS})
    if unknown:
        raise KeyError(", ".join(unknown))
    return tuple(benchmark for benchmark in BENCHMARKS if not names or benchmark.name in names)
