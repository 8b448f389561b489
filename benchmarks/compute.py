"""What a publisher computes, and what importing it takes: signatures, tokens, the import."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial

from .contenders import signers
from .peers import ROOT, MissingError, python_version_of, python_with
from .report import Section, Table, Target, number
from .rounds import interleave, ratio
from .workers import Job, race

SIZES = (100, 4096)
AIMS = {100: 12.0, 4096: 4.0}


def signing(*, quick: bool) -> Section:
    """Signatures of messages of two sizes and three kinds."""
    table = Table(["message", "tambur, bodies/s", "oauthlib, bodies/s", "times"])
    section = Section(
        "Signing",
        "From a message to the signed body of its request (OAuth 1.0a, HMAC-SHA1), with a message of 100 bytes "
        "and of 4 KiB: `tambur.protocol.oauth.sign_publish` beside oauthlib's `Client.sign`. A second here is one of "
        "processor time.",
        [table],
    )
    try:
        oauthlib = python_with("oauthlib", "oauthlib")
    except MissingError as error:
        table.add_missing("oauthlib", error)
        oauthlib = None
    jobs = {}
    for content in signers.MESSAGES:
        for size in SIZES:
            arguments = [content, str(size)]
            jobs[f"tambur {content} {size}"] = Job(sys.executable, "signers:tambur", arguments)
            if oauthlib is not None:
                jobs[f"oauthlib {content} {size}"] = Job(oauthlib, "signers:oauthlib", arguments)
    timings = race(jobs, rounds=3 if quick else 9, round_s=0.02 if quick else 0.2)
    rates = {name: [t.calls_per_cpu_s for t in found] for name, found in timings.items()}
    for size in SIZES:
        times = []
        for content in signers.MESSAGES:
            ours, theirs = rates[f"tambur {content} {size}"], rates.get(f"oauthlib {content} {size}")
            row = [f"{content}, {size} bytes", number(statistics.median(ours))]
            if theirs is not None:
                times.append(ratio(ours, theirs))
                row += [number(statistics.median(theirs)), f"{times[-1]:.1f}"]
            table.add(*row, *[""] * (len(table.columns) - len(row)))
        aim = f"at least {AIMS[size]:g} times oauthlib at {size} bytes, whatever the content"
        section.targets.append(Target.at_least(aim, min(times, default=None), AIMS[size]))
    return section


def token(*, quick: bool) -> Section:
    """One mode token."""
    table = Table(["call", "tokens/s", "times the first"])
    first = "`hmac.new(...).hexdigest()` over the joined text"
    jobs = {
        first: Job(sys.executable, "tokens:hmac_new"),
        "tambur: `generate_auth_token`": Job(sys.executable, "tokens:tambur"),
    }
    ours = list(jobs)[-1]
    missing = {}
    for package, method in (("itsdangerous", "Signer.get_signature"), ("pusher", "authenticate")):
        try:
            python = python_with(package, package)
        except MissingError as error:
            missing[package] = error
        else:
            label = f"{package} {python_version_of(python, package)}: `{method}`"
            jobs[label] = Job(python, f"tokens:{package}")
    timings = race(jobs, rounds=5 if quick else 15, round_s=0.02 if quick else 0.2)
    rates = {name: [t.calls_per_cpu_s for t in found] for name, found in timings.items()}
    for name, found in rates.items():
        table.add(name, number(statistics.median(found)), f"{ratio(found, rates[first]):.2f}")
    for name, missed in missing.items():
        table.add_missing(name, missed)
    return Section(
        "A mode token",
        "The whole public call: names checked, text joined, hashed. The first row checks nothing. A second here is "
        "one of processor time.",
        [table],
        [Target.at_least("at least 1.6 times the first", ratio(rates[ours], rates[first]), 1.6)],
    )


def imports(*, quick: bool) -> Section:
    """How long a fresh process takes to import."""
    modules = ("requests", "tambur")
    timings = interleave({name: partial(_import_ms, name) for name in modules}, 5 if quick else 41)
    table = Table(["fresh process", "ms (median)", "ms (least)"])
    for name, found in timings.items():
        table.add(f"`import {name}`", number(statistics.median(found)), number(min(found)))
    more = statistics.median(a - b for a, b in zip(timings["tambur"], timings["requests"], strict=True))
    return Section(
        "Importing",
        "In a new process each time, files cached.",
        [table],
        [Target("within 10 ms of `import requests`", f"{more:+.1f} ms", more <= 10)],
    )


def _import_ms(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(1e3 * (time.perf_counter() - t))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout)
