#!/usr/bin/env python3
"""Offers load at a fixed rate, whatever the server does with it, and says what became of it.

    python3 benches/load.py --url http://127.0.0.1:8000 --rate 50 --seconds 60

The load is open: requests come at times that are drawn beforehand (a Poisson process), as those of many clients do, so that a slow
server gets as many as a fast one. Latency counts from when a request was due, so that waiting for a free connection is in it.
With --saturate there is no rate: every connection sends its next request when it has its answer, which shows how much a server can do and
hides how long others would wait. Bounded in time, in rate and in connections; it ends by itself. Needs Python 3.11 and nothing else. Python itself manages about
a thousand requests a second on one core; what it could not send in time it reports as late.
"""
import argparse
import collections
import http.client
import json
import pathlib
import queue
import random
import sys
import threading
import time
import urllib.parse
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
RATE_MAX, SECONDS_MAX, CONNECTIONS_MAX = 5_000.0, 3_600.0, 1_000
# Sent this late, a request says more about this program than about the server.
LATE_SECONDS = 0.05


class Report(NamedTuple):
    """What became of the requests that were offered."""

    offered: int  # requests that were due
    seconds: float  # from the first that was due to the last answer
    outcomes: dict  # requests by status, or by what went wrong
    accepted_seconds: list  # of those answered with 200, from when they were due, sorted
    late: int  # requests that found every connection busy, or this program

    @property
    def goodput(self):
        """Requests a second that were answered with 200."""
        return self.outcomes.get("200", 0) / self.seconds

    def quantile(self, share):
        """Seconds within which this share of the accepted was answered; none without any."""
        if not self.accepted_seconds:
            return None
        return self.accepted_seconds[min(len(self.accepted_seconds) - 1, int(share * len(self.accepted_seconds)))]

    def as_json(self):
        quantiles = {f"p{share * 100:g}_ms": self.quantile(share) for share in (0.5, 0.95, 0.99)}
        return {
            "offered": self.offered,
            "seconds": round(self.seconds, 3),
            "goodput": round(self.goodput, 2),
            "outcomes": self.outcomes,
            "late": self.late,
            **{name: None if value is None else round(value * 1e3, 2) for name, value in quantiles.items()},
        }


def offer(urls, photo, rate, seconds, connections, seed=0):
    """Sends photos at `rate` requests a second to these servers in turn."""
    moments, at, draw = [], 0.0, random.Random(seed)
    while (at := at + draw.expovariate(rate)) < seconds:
        moments.append(at)
    due = queue.SimpleQueue()
    results = queue.SimpleQueue()
    start = time.monotonic() + 0.1
    threads = start_senders(urls, photo, connections, due.get, results, start)
    for moment in moments:
        if (ahead := start + moment - time.monotonic()) > 0:
            time.sleep(ahead)
        due.put(moment)
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return account(results, max(time.monotonic() - start, seconds))


def saturate(urls, photo, seconds, connections):
    """Sends as many photos as these servers answer; each connection one at a time."""
    results = queue.SimpleQueue()
    start = time.monotonic()

    def next_moment():
        now = time.monotonic() - start
        return now if now < seconds else None

    for thread in start_senders(urls, photo, connections, next_moment, results, start):
        thread.join()
    return account(results, time.monotonic() - start)


def start_senders(urls, photo, connections, next_moment, results, start):
    """Connections to the servers in turn, each a thread that ends when there is no next moment."""
    threads = [
        threading.Thread(target=send, args=(urls[index % len(urls)], photo, next_moment, results, start), daemon=True)
        for index in range(connections)
    ]
    for thread in threads:
        thread.start()
    return threads


def account(results, seconds):
    outcomes, accepted, late = collections.Counter(), [], 0
    while not results.empty():
        outcome, waited, took = results.get()
        outcomes[outcome] += 1
        late += waited > LATE_SECONDS
        if outcome == "200":
            accepted.append(took)
    return Report(outcomes.total(), seconds, dict(outcomes), sorted(accepted), late)


def send(url, photo, next_moment, results, start):
    """One kept connection, which sends what is due until there is no more."""
    address = urllib.parse.urlsplit(url)
    connection = None
    while (moment := next_moment()) is not None:
        waited = time.monotonic() - start - moment
        try:
            connection = connection or http.client.HTTPConnection(address.hostname, address.port or 80, timeout=60)
            connection.request("POST", "/api/v1/classify", photo, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            outcome = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
            connection.close()
            connection = None
        results.put((outcome, waited, time.monotonic() - start - moment))
    if connection:
        connection.close()


def within(most):
    def parse(text):
        value = type(most)(text)
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {most}")
        return value

    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", action="append", help="of a server of yours; several take turns")
    parser.add_argument("--photo", type=pathlib.Path, default=ROOT / "tests/golden/inputs/cat.jpg")
    parser.add_argument("--rate", type=within(RATE_MAX), default=50.0, help="requests a second")
    parser.add_argument("--saturate", action="store_true", help="no rate, as many as are answered")
    parser.add_argument("--seconds", type=within(SECONDS_MAX), default=60.0)
    parser.add_argument("--connections", type=within(CONNECTIONS_MAX), default=64)
    options = parser.parse_args()
    urls = options.url or ["http://127.0.0.1:8000"]
    photo = options.photo.read_bytes()
    if options.saturate:
        report = saturate(urls, photo, options.seconds, options.connections)
    else:
        report = offer(urls, photo, options.rate, options.seconds, options.connections)
    json.dump(report.as_json(), sys.stdout, indent=1)
    print()
    return 0 if report.outcomes.get("200") else "no request was answered with 200"


if __name__ == "__main__":
    sys.exit(main())
