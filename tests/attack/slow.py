"""One honest client beside many slow ones: the share of its requests that `ad-dinov3 serve` answers with 200.

    python tests/attack/slow.py --seconds 60 --uploads 32 --headers 100

Each slow upload sends a byte in four seconds, each half-sent header none; whoever is hung up on comes again. Exit
code 0 if at least 95 % of the honest requests are answered, and the service ends in 45 s with slow uploads in hand.
"""

from __future__ import annotations

import argparse
import signal
import socket
import statistics
import sys
import threading
import time

from clients import command, exchange, picture, posted

_WANTED = 0.95
_END_S = 45


def stall(address: tuple[str, int], request: bytes, pause_s: float, over: threading.Event) -> None:
    """Send a request and then a byte now and then, again and again."""
    while not over.wait(0.1):
        try:
            with socket.create_connection(address, timeout=20) as connection:
                connection.sendall(request)
                while not over.wait(pause_s):
                    connection.sendall(b"x")
        except OSError:
            continue


def ask(address: tuple[str, int], seconds: float) -> tuple[list[int], list[float]]:
    """The statuses of honest requests, 0 where there is no answer, and how long each took in seconds."""
    statuses: list[int] = []
    times: list[float] = []
    whole = picture(256)
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        try:
            statuses.append(exchange(address, posted(whole, f"Content-Length: {len(whole)}"))[0])
        except (OSError, IndexError, ValueError):
            statuses.append(0)
        times.append(time.monotonic() - begun)
        time.sleep(0.2)
    return statuses, times


def main() -> int:
    """Run it; 0 if it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--uploads", type=int, default=32)
    parser.add_argument("--headers", type=int, default=100)
    arguments = parser.parse_args()
    over = threading.Event()
    upload, half = posted(b"x", "Content-Length: 100000"), b"GET /health HTTP/1.1\r\nHost: "
    kinds = [(upload, 4.0)] * arguments.uploads + [(half, 3600.0)] * arguments.headers
    with command() as (process, address):
        exchange(address, posted(picture(), f"Content-Length: {len(picture())}"))
        for request, pause_s in kinds:
            threading.Thread(target=stall, args=(address, request, pause_s, over), daemon=True).start()
        statuses, times = ask(address, arguments.seconds)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(_END_S)
        ended_s = time.monotonic() - begun
        over.set()
    answered = statuses.count(200)
    share, median, longest = answered / len(statuses), statistics.median(times), max(times)
    sys.stdout.write(f"{answered} of {len(statuses)} answered with 200 ({share:.1%}), {median:.2f} s in the median, ")
    sys.stdout.write(f"{longest:.2f} s at most; ended {ended_s:.1f} s after SIGTERM\n")
    return 0 if share >= _WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
