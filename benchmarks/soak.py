"""A line for ten minutes: files arrive, `watch` is killed and started again, and so is the broker that takes its rows.

    python benchmarks/soak.py --data FOLDER --out DIR [--files 1000] [--seconds 600] [--kills 3]

Copies of the images in FOLDER are written into an inbox slowly enough to be seen half, in sub-folders that come up on
the way. `ad-dinov3 watch` gets SIGKILL at random moments of the first two thirds and is started again at once; in the
last third mosquitto, on 127.0.0.1, gets SIGKILL twice and is away for a while. Exit code 0 if every file has one row
that is no failure and, since the last kill of `watch`, every row has reached the subscriber. Needs mosquitto and the
extra mqtt.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

_AWAY_S = 20.0
_LAST_S = 300.0
_TOPIC = "line"
_DECISIONS = ("normal", "anomalous")


class Process:
    """A program that is killed and started again."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self.kills = 0
        self.start()

    def start(self) -> None:
        """Start it; what it prints is added to the log."""
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """SIGKILL."""
        self._running.kill()
        self._running.wait()
        self.kills += 1

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self._running.send_signal(signal.SIGTERM)
        return self._running.wait(_LAST_S)


def drop_files(images: list[Path], inbox: Path, count: int, gap_s: float, is_over: Event) -> None:
    """Write copies of the images, each in two halves."""
    for number in range(count):
        source = images[number % len(images)]
        target = inbox / f"hour {number * 8 // count}" / f"{number:05}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(gap_s / 2)
            file.write(content[len(content) // 2 :])
        if is_over.wait(gap_s / 2):
            return


def listen(port: int, received: Counter[str]) -> Client:
    """A subscriber whose session outlives the broker."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="soak", clean_session=False)

    def note(_client: Client, _data: object, message: MQTTMessage) -> None:
        received[json.loads(message.payload)["image"]] += 1

    client.on_connect = lambda *_: client.subscribe(_TOPIC, qos=1)
    client.on_message = note
    client.reconnect_delay_set(1, 2)
    client.connect_async("127.0.0.1", port)
    client.loop_start()
    return client


def start_broker(folder: Path) -> tuple[Process, int]:
    """Mosquitto with a memory on disk, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    settings = folder / "mosquitto.conf"
    memory = f"persistence true\npersistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\n"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser root\n{memory}")
    return Process(
        [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(settings)], folder / "broker.log"
    ), port


def wait_for(holds: Callable[[], bool], limit_s: float) -> bool:
    """Whether it comes to hold in time."""
    until = time.monotonic() + limit_s
    while not holds() and time.monotonic() < until:
        time.sleep(0.5)
    return holds()


def rows_in(out: Path) -> Counter[str]:
    """Image -> rows in results.jsonl that are no failures."""
    file = out / "results.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return Counter(row["image"] for row in rows if row["decision"] != "failed")


def disturb(watch: Process, broker: Process, seconds: float, kills: int) -> float:
    """Kill them at random moments until the time is over; when `watch` was killed last."""
    chance, started = random.Random(0), time.monotonic()
    moments = sorted(chance.uniform(0.05, 0.6) * seconds for _ in range(kills))
    last = started
    for moment in moments:
        time.sleep(max(0.0, started + moment - time.monotonic()))
        watch.kill()
        last = time.monotonic()
        watch.start()
    for moment in (0.7 * seconds, 0.85 * seconds):
        time.sleep(max(0.0, started + moment - time.monotonic()))
        broker.kill()
        time.sleep(min(_AWAY_S, seconds / 20))
        broker.start()
    time.sleep(max(0.0, started + seconds - time.monotonic()))
    return last - started


def main() -> int:
    """Run the line and print what became of the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kills", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True)  # an earlier soak's files would be counted
    inbox, results, log = args.out / "inbox", args.out / "results", args.out / "watch.log"
    inbox.mkdir()
    images = sorted(path for path in args.data.rglob("*") if path.suffix.lower() in {".jpg", ".png"})
    broker, port = start_broker(args.out)
    received: Counter[str] = Counter()
    listener = listen(port, received)
    command = ["watch", str(inbox), "-o", str(results), "--publish", f"mqtt://127.0.0.1:{port}/{_TOPIC}"]
    watch = Process([sys.executable, "-m", "ad_dinov3", *command], log)
    is_over = Event()
    files = Thread(target=drop_files, args=(images, inbox, args.files, args.seconds / args.files, is_over))
    files.start()
    try:
        last_kill_s = disturb(watch, broker, args.seconds, args.kills)
        files.join()
        all_scored = wait_for(lambda: len(rows_in(results)) == args.files, _LAST_S)
        expected = {name for name in rows_in(results) if int(Path(name).stem) * args.seconds / args.files > last_kill_s}
        all_told = wait_for(lambda: expected <= set(received), _LAST_S)
        code = watch.end()
    finally:
        is_over.set()
        listener.loop_stop()
        broker.kill()
    rows = rows_in(results)
    told = Counter(line[19:] for line in log.read_text().splitlines() if line[9:18].strip() in _DECISIONS)
    print(
        f"{args.files} files in {args.seconds:.0f} s; killed: watch {watch.kills} times, the broker {broker.kills - 1}"
    )
    print(f"rows: {len(rows)} files, {sum(rows.values()) - len(rows)} twice; exit code {code}")
    print(f"scored again after a kill: {sum(count - 1 for count in told.values())}")
    print(f"rows that reached the subscriber: {len(received)}, {sum(received.values()) - len(received)} of them twice")
    print(f"of the {len(expected)} since watch was killed last, {len(expected - set(received))} did not")
    return 0 if all_scored and all_told and sum(rows.values()) == args.files and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
