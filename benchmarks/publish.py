"""Publishing: one thread, environments of different sizes, and many threads."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .contenders import publishers
from .peers import MissingError, compiled, python_version_of, python_with
from .processes import SERVER_CORE, Process
from .report import Section, Table, Target, number
from .rounds import interleave, ratio, spread
from .workers import Job, Timing, Worker, race

LIMIT = "raw socket, the request made once"
TAMBUR = "tambur"
OF_2012 = "the package of 2012"


class _Contender(NamedTuple):
    function: str
    answer: str
    module: str | None = None
    package: str = ""


CONTENDERS = {
    LIMIT: _Contender("raw_socket", publishers.TAMBUR_ANSWER),
    TAMBUR: _Contender("tambur", publishers.TAMBUR_ANSWER),
    OF_2012: _Contender(
        "requests_oauthlib", publishers.TAMBUR_ANSWER, "requests_oauthlib", "requests-oauthlib"
    ),
    "pusher": _Contender("pusher", publishers.PUSHER_ANSWER, "pusher", "pusher"),
    "ably": _Contender("ably", publishers.ABLY_ANSWER, "ably", "ably"),
    "cent": _Contender("cent", publishers.CENT_ANSWER, "cent", "cent"),
    "pubnub": _Contender("pubnub", publishers.PUBNUB_ANSWER, "pubnub", "pubnub"),
}


def find() -> tuple[dict[str, str], dict[str, MissingError]]:
    """The Python of each contender, and those that are missing."""
    pythons: dict[str, str] = {}
    missing: dict[str, MissingError] = {}
    for name, contender in CONTENDERS.items():
        try:
            module = contender.module
            pythons[name] = sys.executable if module is None else python_with(module, contender.package)
        except MissingError as error:
            missing[name] = error
    return pythons, missing


@contextlib.contextmanager
def answering(answer: str, delay_ms: float = 0, awake_ms: float = 0) -> Iterator[str]:
    """The URL of a server that gives one answer to everything.

    Parameters:
        awake_ms: for how long after a request it does not sleep.
    """
    with Process([compiled("answer"), str(delay_ms), str(awake_ms), answer], core=SERVER_CORE) as server:
        yield f"http://127.0.0.1:{server.read_line()}"


def _label(name: str, python: str) -> str:
    package = CONTENDERS[name].package
    return f"{name} {python_version_of(python, package)}" if package and name != OF_2012 else name


# Longer than any library takes to its next request, and short enough that of the servers, which share a core,
# only the one whose turn it is doesn't sleep.
_AWAKE_MS = {"a server that is awake": 5.0, "a server that sleeps": 0.0}


def publish(*, quick: bool) -> Section:
    """One thread, one connection."""
    pythons, missing = find()
    with contextlib.ExitStack() as stack:
        jobs = {}
        for server, awake_ms in _AWAKE_MS.items():
            for name, python in pythons.items():
                url = stack.enter_context(answering(CONTENDERS[name].answer, awake_ms=awake_ms))
                jobs[f"{name}, {server}"] = Job(python, f"publishers:{CONTENDERS[name].function}", [url])
        timings = race(jobs, rounds=3 if quick else 9, round_s=0.1 if quick else 0.5)
    section = Section(
        "Publishing",
        "One thread publishes a message of 128 bytes through each library's public call, over loopback, to a "
        "small server in C that answers at once with what the library expects. The first row sends the bytes of "
        "one signed request again and again: what is left is the price of two system calls and of the server. "
        "The package of 2012 called `requests.post` with requests-oauthlib for each message. To fall asleep "
        "until an answer comes, and to be woken, takes processor time, too: in a virtual machine 20 to 110 µs a "
        "publish, depending on the library. So there are two tables: in the first the server doesn't "
        "sleep, and its answer is there before a library gets to wait for it: what remains is the libraries. In "
        "the second both sides sleep, as they do over a network.",
    )
    for server in _AWAKE_MS:
        of_server = {name: timings[f"{name}, {server}"] for name in pythons}
        section.tables.append(_publish_table(server, of_server, pythons, missing))
        section.targets += _publish_targets(server, of_server)
    return section


def _publish_table(
    server: str, timings: dict[str, list[Timing]], pythons: dict[str, str], missing: dict[str, MissingError]
) -> Table:
    table = Table([f"to {server}", "publishes/s", "times the 2012 way", "CPU µs each", "spread"])
    rates = _rates(timings)
    for name, found in timings.items():
        against = f"{ratio(rates[name], rates[OF_2012]):.2f}" if OF_2012 in rates else ""
        cpu_us = statistics.median(t.cpu_us for t in found)
        table.add(
            _label(name, pythons[name]),
            number(statistics.median(rates[name])),
            against,
            number(cpu_us),
            f"{100 * spread(rates[name]):.0f} %",
        )
    for name, error in missing.items():
        table.add_missing(name, error)
    return table


def _publish_targets(server: str, timings: dict[str, list[Timing]]) -> list[Target]:
    rates = _rates(timings)
    peers = {name: r for name, r in rates.items() if name not in (LIMIT, TAMBUR, OF_2012)}
    best = max(peers, key=lambda name: statistics.median(peers[name]), default=None)
    against_2012 = ratio(rates[TAMBUR], rates[OF_2012]) if OF_2012 in rates else None
    against_best = ratio(rates[TAMBUR], rates[best]) if best else None
    return [
        Target.at_least(f"{server}: at least 4 times the 2012 way", against_2012, 4.0),
        Target.at_least(f"{server}: at least 1.7 times the best peer ({best or 'none'})", against_best, 1.7),
    ]


def _rates(timings: dict[str, list[Timing]]) -> dict[str, list[float]]:
    return {name: [t.calls_per_s for t in found] for name, found in timings.items()}


ENVIRONMENT_SIZES = (5, 40, 150)


def environment(*, quick: bool) -> Section:
    """The same with more and more environment variables, and a .netrc."""
    pythons, missing = find()
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        hosts = "".join(f"machine host{n}.example.com login user password pass\n" for n in range(20))
        netrc = Path(home, ".netrc")
        netrc.write_text(hosts, "ascii")
        netrc.chmod(0o600)
        jobs = {}
        for name, python in pythons.items():
            url = stack.enter_context(answering(CONTENDERS[name].answer))
            for size in ENVIRONMENT_SIZES:
                jobs[f"{name}, {size}"] = Job(
                    python,
                    f"publishers:{CONTENDERS[name].function}",
                    [url],
                    _variables(size, home),
                )
        timings = race(jobs, rounds=3 if quick else 9, round_s=0.1 if quick else 0.25)
    rates = _rates(timings)
    columns = [f"{size} variables" for size in ENVIRONMENT_SIZES]
    table = Table(["publishes/s with", *columns, "150 against 5"])
    for name, python in pythons.items():
        of_sizes = [rates[f"{name}, {size}"] for size in ENVIRONMENT_SIZES]
        medians = [number(statistics.median(r)) for r in of_sizes]
        table.add(_label(name, python), *medians, f"{ratio(of_sizes[-1], of_sizes[0]):.2f}")
    for name, error in missing.items():
        table.add_missing(name, error)
    ours = ratio(rates[f"{TAMBUR}, 150"], rates[f"{TAMBUR}, 5"])
    return Section(
        "Publishing with a large environment",
        "The same with 5, 40 and 150 environment variables set, and a `.netrc` of 20 machines in the home "
        "directory. requests looks for proxies in the environment at every request, twice, and in `.netrc`; "
        "Tambur does so once, when a client is made.",
        [table],
        [Target("no slower with 150 than with 5, within noise (5 %)", f"{ours:.2f} times", ours >= 0.95)],
    )


def _variables(size: int, home: str) -> dict[str, str]:
    variables = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LANG": "C.UTF-8"}
    return variables | {f"SETTING_{n}": f"value {n}" for n in range(size - len(variables))}


THREADS = 32
ANSWER_MS = 20


def threads(*, quick: bool) -> Section:
    """32 threads, a server that takes its time."""
    pythons, missing = find()
    calls = 5 if quick else 30
    with contextlib.ExitStack() as stack:
        urls = {
            name: stack.enter_context(answering(CONTENDERS[name].answer, ANSWER_MS))
            for name in pythons
            if name != LIMIT
        }
        workers = {
            name: Worker(Job(pythons[name], f"publishers:{CONTENDERS[name].function}", [url]), stack)
            for name, url in urls.items()
        }
        for worker in workers.values():
            worker.run(3, THREADS)
        before = {name: _connections(url) for name, url in urls.items()}
        turns = {name: lambda worker=worker: worker.run(calls, THREADS) for name, worker in workers.items()}
        timings: dict[str, list[Timing]] = interleave(turns, 3 if quick else 5)
        # One for the request that asks.
        new = {name: _connections(url) - before[name] - 1 for name, url in urls.items()}
    most = THREADS / (ANSWER_MS / 1000)
    table = Table(["publisher", "publishes/s", "of the most possible", "CPU µs each", "new connections"])
    table.add(f"{THREADS} threads that only wait", number(most), "100 %", "", "")
    rates = {name: statistics.median(t.calls_per_s for t in found) for name, found in timings.items()}
    for name, found in timings.items():
        cpu_us = statistics.median(t.cpu_us for t in found)
        table.add(
            _label(name, pythons[name]),
            number(rates[name]),
            f"{100 * rates[name] / most:.0f} %",
            number(cpu_us),
            str(new[name]),
        )
    for name, error in missing.items():
        table.add_missing(name, error)
    busy = rates[TAMBUR] / most
    made = sum(t.calls for t in timings[TAMBUR])
    return Section(
        "Publishing from 32 threads",
        f"{THREADS} threads share one client, and the server takes {ANSWER_MS} ms for each answer. Connections "
        f"are counted by the server, from after a warm-up of 3 publishes a thread.",
        [table],
        [
            Target("every thread busy (90 % of the most possible)", f"{100 * busy:.0f} %", busy >= 0.9),
            Target(
                "no new connections after the warm-up", f"{new[TAMBUR]} in {made} publishes", new[TAMBUR] == 0
            ),
        ],
    )


def _connections(url: str) -> int:
    with urllib.request.urlopen(f"{url}/connections") as response:  # noqa: S310 - our own server
        return int(response.read())
