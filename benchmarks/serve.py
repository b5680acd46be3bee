"""The service against the bare session, in one run: images per second and latency over HTTP, by number of clients.

    ad-dinov3 export embedded -o line
    python benchmarks/serve.py line [--data IMAGES] [--clients 1 4 16] [--seconds 10] [--serve --access-log /dev/null]

Each client sends one JPEG after the other over a connection that stays open, and reads the decision as JSON. Beside the
speed on the clock, which suffers from whatever else runs on the machine, stand processor milliseconds an image: the
session's, the service's and the clients'. What one client could reach at most, the session tells with one image at a
time: as the service calls it, and with all cores for each image (mode latency).
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

from ad_dinov3.assets import SAMPLES
from ad_dinov3.data.decode import decode_image
from ad_dinov3.data.streams import find_images
from ad_dinov3.infer.exported import Mode
from ad_dinov3.infer.session import Session
from export import bare_speed

SERVE = "from ad_dinov3.cli import main; main()"
KIND = {"Content-Type": "multipart/form-data; boundary=edge"}


def forms(images: list[Path]) -> list[bytes]:
    """Each image as the body of a request."""
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n\r\n'
    return [head + image.read_bytes() + b"\r\n--edge--\r\n" for image in images]


def client(address: str, bodies: list[bytes], until: float) -> list[float]:
    """Seconds of each request until a moment of the clock."""
    connection = http.client.HTTPConnection(address)
    taken: list[float] = []
    for body in cycle(bodies):
        started = time.perf_counter()
        if started >= until:
            break
        connection.request("POST", "/predict", body, KIND)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {content.decode()}")
        taken.append(time.perf_counter() - started)
    return taken


def one_at_a_time(folder: str, mode: Mode, calls: int = 60) -> float:
    """Milliseconds of a call of the session with a single image, in the median."""
    session = Session(folder, mode=mode)
    image = session.prepare(decode_image(next(find_images([str(SAMPLES)])).path))[None]
    taken = []
    for _ in range(calls):
        started = time.perf_counter()
        session.score(image, ["object"])
        taken.append(time.perf_counter() - started)
    return 1e3 * statistics.median(taken)


def service_seconds(address: str) -> float:
    """Processor seconds that the service has used."""
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/metrics")
    figures = connection.getresponse().read().decode()
    return float(re.search(r"^process_cpu_seconds_total (\S+)", figures, re.MULTILINE)[1])


def main() -> None:
    """Print the session's speed and the service's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--data", type=Path, default=SAMPLES)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="options of ad-dinov3 serve, to the end")
    arguments = parser.parse_args()
    images = [item.path for item in find_images([str(arguments.data)]) if item.path.suffix == ".jpg"][:300]
    bodies = forms(images)
    command = [sys.executable, "-c", SERVE, "serve", "--model", arguments.folder, "--port", "0", *arguments.serve]
    lone, spread = one_at_a_time(arguments.folder, "throughput"), one_at_a_time(arguments.folder, "latency")
    before, session_before = bare_speed(arguments.folder, arguments.seconds)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        address = " ".join(service.stdout.readline().split()).split("http://")[1].partition(",")[0]
        client(address, bodies, time.perf_counter() + 2)
        lines = []
        for count in arguments.clients:
            own, theirs = time.process_time(), service_seconds(address)
            until = time.perf_counter() + arguments.seconds
            with ThreadPoolExecutor(count) as pool:
                runs = list(pool.map(client, [address] * count, [bodies] * count, [until] * count))
            taken = [1e3 * seconds for run in runs for seconds in run]
            p95 = statistics.quantiles(taken, n=20)[-1]
            used = (service_seconds(address) - theirs, time.process_time() - own)
            each = [1e3 * seconds / len(taken) for seconds in used]
            lines.append((count, len(taken) / arguments.seconds, statistics.median(taken), p95, each))
        service.terminate()
    after, session_after = bare_speed(arguments.folder, arguments.seconds)
    bare, session = (before + after) / 2, 500 * (session_before + session_after)
    print(f"bare session: {bare:.1f} images/s, {session:.1f} ms of processor an image")
    print(
        f"one image at a time: {lone:.1f} ms; with all cores for each {spread:.1f} ms, "
        f"which is {1e3 / spread / bare:.0%} of the bare session's images per second"
    )
    for count, speed, p50, p95, (service_ms, client_ms) in lines:
        print(
            f"{count} clients: {speed:.1f} images/s, {speed / bare:.0%}; ms in the median {p50:.1f}, p95 {p95:.1f}; "
            f"processor {service_ms:.1f} + {client_ms:.1f} ms an image, {session / (service_ms + client_ms):.0%}"
        )


if __name__ == "__main__":
    main()
