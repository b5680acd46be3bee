"""Results told to other programs as they come, by webhook or MQTT; a bounded queue keeps a dead broker from the line.

A message is a row of results.jsonl as JSON. It is sent until the other side has taken it, so it may arrive twice but is
not lost, as long as the queue has room; when it has none, the oldest message makes room and is counted.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Condition, Thread
from urllib.parse import SplitResult, urlsplit

from ad_dinov3.errors import ConfigError, MissingExtraError
from ad_dinov3.predict.outputs import Outputs
from ad_dinov3.predict.results import RunKey, failed_row, row_of
from ad_dinov3.predict.types import Failure, Result

Send = Callable[[bytes], None]
"""Hands one message over, or raises OSError."""
_TIMEOUT_S = 10.0
_LONGEST_PAUSE_S = 30.0


class Publisher:
    """A queue of messages and the thread that sends them.

    Args:
        send: hands one over.
        size: most messages that wait.
        per_second: most messages a second.
        first_pause_s: until a message is sent again; it doubles with each failure, up to 30 s.
    """

    def __init__(self, send: Send, size: int = 1000, per_second: float = 50, first_pause_s: float = 0.5) -> None:
        self._send = send
        self._size = size
        self._gap_s = 1 / per_second
        self._first_pause_s = first_pause_s
        self._waiting: deque[bytes] = deque()
        self._changed = Condition()
        self._is_closing = False
        self.dropped = 0
        self.error = ""
        self._thread = Thread(target=self._work, name="publish", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of messages that are not handed over yet."""
        return len(self._waiting)

    def put(self, message: bytes) -> None:
        """Let a message wait for its turn; returns at once."""
        with self._changed:
            if len(self._waiting) >= self._size:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(message)
            self._changed.notify_all()

    def close(self, timeout_s: float = 5.0) -> int:
        """Try for so long to hand over what waits; the number of messages that were not."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting, timeout_s)
            return len(self._waiting)

    def _work(self) -> None:
        pause_s = self._first_pause_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                message = self._waiting[0]
            try:
                self._send(message)
            except OSError as error:
                self.error = str(error)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            self.error, pause_s = "", self._first_pause_s
            with self._changed:
                if self._waiting and self._waiting[0] is message:  # else it has made room meanwhile
                    self._waiting.popleft()
                self._changed.notify_all()
            time.sleep(self._gap_s)


@dataclass(frozen=True, eq=False)
class PublishSink:
    """The sink that tells a publisher of every row; it leaves the publisher open.

    Attributes:
        publisher: sends them.
        key: what decides a result.
        outputs: which files each image gets.
    """

    publisher: Publisher
    key: RunKey
    outputs: Outputs

    def write(self, result: Result) -> None:
        """Tell of a result."""
        self.publisher.put(_message(asdict(row_of(result, self.key, self.outputs))))

    def fail(self, failure: Failure) -> None:
        """Tell of an image that could not be done."""
        self.publisher.put(_message(asdict(failed_row(failure))))

    def close(self) -> None:
        """Nothing is left to do."""


def sender(address: str) -> Send:
    """What hands messages to an address: http(s)://… by POST, mqtt(s)://[USER:PASSWORD@]HOST[:PORT]/TOPIC with QoS 1.

    Raises:
        ConfigError: an address of another kind.
        MissingExtraError: MQTT is wanted and paho-mqtt is not installed.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https") and parts.hostname:
        return _webhook(address)
    if parts.scheme in ("mqtt", "mqtts") and parts.hostname and parts.path.strip("/"):
        return _mqtt(parts)
    raise ConfigError(f"--publish: expected http(s)://HOST/… or mqtt(s)://HOST/TOPIC, got {shown(address)}")


def shown(address: str) -> str:
    """An address without the password that may be in it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _webhook(address: str) -> Send:
    def send(message: bytes) -> None:
        request = urllib.request.Request(address, message, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            raise OSError(f"{shown(address)}: answered {error.code}") from None

    return send


def _mqtt(parts: SplitResult) -> Send:
    try:
        from paho.mqtt.client import MQTT_ERR_SUCCESS, Client, error_string
        from paho.mqtt.enums import CallbackAPIVersion
    except ModuleNotFoundError:
        raise MissingExtraError("paho-mqtt", "mqtt") from None
    client = Client(CallbackAPIVersion.VERSION2)
    if parts.username:
        client.username_pw_set(parts.username, parts.password)
    if parts.scheme == "mqtts":
        client.tls_set()
    host, topic = str(parts.hostname), parts.path.strip("/")
    client.connect_async(host, parts.port or (8883 if parts.scheme == "mqtts" else 1883))
    client.loop_start()

    def send(message: bytes) -> None:
        if not client.is_connected():
            raise OSError(f"{host}: the broker is not connected")
        told = client.publish(topic, message, qos=1)
        if told.rc != MQTT_ERR_SUCCESS:  # the broker left since; paho answers a later question with a RuntimeError
            raise OSError(f"{host}: the broker did not take a message ({error_string(told.rc)})")
        told.wait_for_publish(_TIMEOUT_S)
        if not told.is_published():
            raise OSError(f"{host}: the broker did not take a message")

    return send


def _message(row: dict[str, object]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()
