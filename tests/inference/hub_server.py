"""A small Hugging Face Hub on this machine: the calls that huggingface_hub makes to list, download and upload files."""

import base64
import hashlib
import http.server
import json
import re
import threading
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"


class HubServer:
    """Serves `repos`: repository -> file -> content. Writing needs `TOKEN`; what is written is in `repos` too.

    Attributes:
        url: of the server.
        repos: its content.
        private: repositories that were made private.
        gated: repositories that ask for permission.
        messages: of the commits.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.messages: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer

    def do_GET(self) -> None:
        if match := re.match(r"/api/models/([^/]+/[^/]+)/tree/([^/?]+)", self.path):
            files = self._files(match[1], match[2])
            if files is not None:
                self._json([{"type": "file", "path": k, "size": len(v), "oid": _oid(v)} for k, v in files.items()])
        elif match := re.match(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            files = self._files(match[1], match[2])
            if files is not None and match[3] not in files:
                self._refuse(404, "EntryNotFound")
            elif files is not None:
                self._file(files[match[3]])
        else:
            self._refuse(404, "")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "")
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "")

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = f"{wanted['organization']}/{wanted['name']}"
        self.hub.repos.setdefault(repo, {})
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.hub.private.add(repo)
        self._json({"url": f"{self.hub.url}/{repo}"})

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "header":
                self.hub.messages.append(line["value"]["summary"])
            else:
                assert line["key"] == "file"
                self.hub.repos[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.url}/{repo}/commit/{COMMIT}"})

    def _files(self, repo: str, revision: str) -> dict[str, bytes] | None:
        if repo in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        if repo not in self.hub.repos:
            return self._refuse(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        return self.hub.repos[repo]

    def _file(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{_oid(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self._end(content)

    def _json(self, value: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._end(json.dumps(value).encode())

    def _refuse(self, code: int, error: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("X-Error-Message", error or "refused")
        self._end(b"")

    def _end(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
