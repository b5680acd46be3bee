"""A hub on this machine that speaks as much of Hugging Face's protocol as a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repositories: dict[str, dict[str, bytes]], gated: frozenset[str] = frozenset()) -> Iterator[str]:
    """Serve files by repository and name; gated ones tell what they hold, but refuse the files. Gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            parts = path.removeprefix("api/models/").split("/")
            repository, rest = "/".join(parts[:2]), parts[2:]
            if repository not in repositories:
                self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif rest and rest[0] == "revision":
                self.reply(200, json.dumps({"id": repository, "sha": COMMIT}).encode(), {})
            elif rest and rest[0] == "tree":
                files = repositories[repository].items()
                listed = [
                    {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()} for k, v in files
                ]
                self.reply(200, json.dumps(listed).encode(), {})
            elif repository in gated:
                self.reply(401, b"", {"X-Error-Code": "GatedRepo"})
            else:
                content = repositories[repository]["/".join(rest[2:])]
                self.reply(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

        def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
