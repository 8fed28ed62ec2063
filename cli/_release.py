"""release: versions that get a growing share of a service's calls."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click

from trunkline.client import GateSample, Release, ReleaseGate, ReleaseStep, Trunkline
from trunkline.core.errors import InvalidArgument

from ._context import Settings, settings

COLUMNS = ("service", "version", "baseline", "phase", "step", "percent", "verdict", "reason", "author")
GATE_COLUMNS = ("version", "calls", "failed", "success_rate", "latency")
STEP = re.compile(r"(?P<percent>\d{1,3})(?P<manual>m)?(?::(?P<hold>.+))?")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600}


@click.group(short_help="Give a new version its calls step by step.")
def release() -> None:
    """Versions that get a growing share of a service's calls, each step only if their calls do as well as the others'.

    \b
    trunkline release start cart ^2 --steps 5,25,50,100 --hold 5m       a canary
    trunkline release start cart 2.0.0 --steps 0m,100                  blue-green: switch by `promote`
    trunkline release start cart 2.0.0 --manual                        each step by `promote`
    trunkline release status cart
    """


@release.command("start")
@click.argument("service")
@click.argument("version", metavar="VERSION")
@click.option(
    "--baseline", default="", help="The versions that serve now, a range; else what was proven good, or all others."
)
@click.option(
    "--steps", default="", help="Percent of the calls, such as 5,25m,50:5m,100: m is manual, then its own hold."
)
@click.option("--hold", default="1m", show_default=True, help="Of each step that has none of its own: 30s, 5m, 1h.")
@click.option("--manual", is_flag=True, help="The end of each step waits for `promote`.")
@click.option("--minimum-calls", type=click.IntRange(1), help="Fewer of either version are no data.")
@click.option("--max-success-rate-drop", type=click.FloatRange(0, 100), help="Percent by which it may be worse.")
@click.option("--max-latency-increase", type=click.IntRange(0), help="Percent by which it may be higher.")
@click.option("--latency-percentile", type=click.IntRange(1, 99))
@click.option("--significance", type=click.FloatRange(0.01, 50), help="Percent of being wrong when it says WORSE.")
@click.option("--no-data-after", metavar="DURATION", help="Pause when a step has too few calls for so long.")
@click.option(
    "--sticky-header", "sticky_on_header", default="", help="Calls with the same value stay with one version."
)
@click.option("--sticky-caller", "sticky_on_caller", is_flag=True, help="Calls of one caller stay with one version.")
@click.option("--reason", default="", help="Why; kept with the change.")
@settings
def start_release(
    setting: Settings, /, service: str, version: str, steps: str, hold: str, manual: bool, **options: Any
) -> None:
    """Begin to release VERSION, a range, of SERVICE."""
    wanted = steps_of(steps, hold, manual=manual)
    gate = _gate_of(options)

    async def work(trunkline: Trunkline) -> Release:
        return await trunkline.start_release(
            service, version, steps=wanted, gate=gate, baseline=options["baseline"], reason=options["reason"],
            sticky_on_header=options["sticky_on_header"], sticky_on_caller=options["sticky_on_caller"],
        )  # fmt: skip

    _show(setting, setting.run(work))


@release.command("status")
@click.argument("service")
@settings
def release_status(setting: Settings, service: str) -> None:
    """Show the last release of SERVICE, and what its gate says."""

    async def work(trunkline: Trunkline) -> Release:
        return await trunkline.get_release(service)

    _show(setting, setting.run(work))


@release.command("list")
@settings
def list_releases(setting: Settings) -> None:
    """List the last release of each service of the namespace."""

    async def work(trunkline: Trunkline) -> list[dict[str, Any]]:
        return [_row(one) for one in await trunkline.releases()]

    setting.show(setting.run(work), COLUMNS, empty="no releases")


def _steering(name: str, words: str) -> click.Command:
    @click.argument("service")
    @click.option("--reason", default="", help="Why; kept with the change.")
    @settings
    def steer(setting: Settings, service: str, reason: str) -> None:
        async def work(trunkline: Trunkline) -> Release:
            steered: Release = await getattr(trunkline, f"{name}_release")(service, reason=reason)
            return steered

        _show(setting, setting.run(work))

    steer.__doc__ = words
    return release.command(name)(steer)


promote = _steering(
    "promote", "Take the next step now, whatever the gate says; behind the last the release is completed."
)
pause = _steering("pause", "Hold the release where it is.")
resume = _steering("resume", "Go on after a pause: the step begins anew.")
abort = _steering("abort", "Give all calls to the versions that served before; after the end, too.")


# Reading what was typed.


def steps_of(text: str, hold: str, *, manual: bool) -> list[ReleaseStep]:
    """The steps that `--steps`, `--hold` and `--manual` mean."""
    hold_s = seconds_of("--hold", hold)
    found: list[ReleaseStep] = []
    for part in (text or "5,25,50,100").split(","):
        match = STEP.fullmatch(part.strip())
        if match is None:
            raise InvalidArgument.of("--steps", "percents such as 5,25m,50:5m,100", text)
        own_s = seconds_of("--steps", match["hold"]) if match["hold"] else hold_s
        found.append(
            ReleaseStep(percent=int(match["percent"]), hold_s=own_s, manual=manual or match["manual"] is not None)
        )
    return found


def seconds_of(option: str, text: str) -> float:
    """What a duration such as 5m means."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidArgument.of(option, "a duration such as 30s, 5m or 1h", text)
    return float(match[1]) * SECONDS[match[2]]


def _gate_of(options: dict[str, Any]) -> ReleaseGate:
    drop, significance = options["max_success_rate_drop"], options["significance"]
    after = options["no_data_after"]
    return ReleaseGate(
        minimum_calls=options["minimum_calls"],
        max_success_rate_drop_basis_points=None if drop is None else round(drop * 100),
        max_latency_increase_percent=options["max_latency_increase"],
        latency_percentile=options["latency_percentile"],
        significance_basis_points=None if significance is None else round(significance * 100),
        no_data_after_s=None if after is None else seconds_of("--no-data-after", after),
    )


# Showing.


def _row(one: Release) -> dict[str, Any]:
    steps = ",".join(f"{step.percent}{'m' if step.manual else ''}" for step in one.steps)
    return {
        "service": one.service,
        "version": one.version,
        "baseline": one.baseline,
        "phase": one.phase.name,
        "step": f"{one.step + 1} of {len(one.steps)}",
        "steps": steps,
        "percent": one.percent,
        "verdict": None if one.gate is None else one.gate.verdict.name,
        "reason": one.reason,
        "author": one.author,
        "started": _time(one.started_at),
        "step_began": _time(one.step_began_at),
        "revision": one.revision,
    }


def _show(setting: Settings, one: Release) -> None:
    row = _row(one)
    if setting.as_json:
        gate = one.gate
        row |= {} if gate is None else {"gate": gate.reason, "samples": [_sample(*two) for two in _both(one)]}
        setting.show_one(row)
        return
    setting.show_one(row)
    if one.gate is not None:
        click.echo(f"\ngate: {one.gate.reason}")
        setting.show([_sample(*two) for two in _both(one)], GATE_COLUMNS, empty="")


def _both(one: Release) -> list[tuple[str, GateSample]]:
    assert one.gate is not None
    return [(one.version, one.gate.released), (one.baseline, one.gate.baseline)]


def _sample(version: str, sample: GateSample) -> dict[str, Any]:
    rate = 1 - sample.failed / sample.calls if sample.calls else None
    return {
        "version": version,
        "calls": sample.calls,
        "failed": sample.failed,
        "success_rate": None if rate is None else f"{rate:.2%}",
        "latency": f"{sample.latency_s * 1e3:.3g} ms" if sample.latency_s else None,
    }


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")
