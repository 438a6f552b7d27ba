"""A small Hub on 127.0.0.1 that speaks the routes the real huggingface_hub client asks for, and can fail in the ways that Hubs fail.

with FakeHub() as hub:
    commit = hub.put("owner/name", {"model.safetensors": b"...", "config.json": b"{}"})
    hub.faults["owner/name"] = "truncate"

Files ending in .safetensors are "large": a HEAD redirects to another host name, as the real Hub does to its storage, and their ETag is their
SHA-256. Faults: "gated" (403), "unauthorised" (401), "forbidden" (403), "broken" (500), "no-hub" (200 without the Hub's headers), "hang" (accepts,
then says nothing); and of large files: "truncate" (half of the bytes, then closed, whatever range is asked for), "stall" (half, then
silence), "wrong" (other bytes, same number).
"""
from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def _etag(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if _is_large(name) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: "FakeHub"

    def log_message(self, *_):
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), Content_Type="application/json")

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def error(self, status: int, code: str = "") -> None:
        self.send(status, json.dumps({"error": code or "error"}).encode(), **({"X_Error_Code": code} if code else {}))

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        for method, pattern, answer in _ROUTES:
            if self.command in method.split() and (match := re.fullmatch(pattern, path)):
                return answer(self, *match.groups())
        self.error(404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def failed(self, repo: str) -> bool:
        """Answer for a repository that is missing or that has a fault; True when answered."""
        fault = self.hub.faults.get(repo)
        if fault == "hang":
            self.hub.closing.wait(60)
            self.close_connection = True
        elif fault == "gated":
            self.error(403, "GatedRepo")
        elif fault == "unauthorised":
            self.error(401)
        elif fault == "forbidden":
            self.error(403)
        elif fault == "broken":
            self.error(500)
        elif fault == "no-hub":
            self.send(200, b"<html>Please log in to this network</html>")
        elif repo not in self.hub.repos:
            self.error(401, "RepoNotFound")
        else:
            return False
        return True

    def resolve(self, repo: str, revision: str, name: str) -> None:
        if self.failed(repo):
            return
        commit = self.hub.commit_of(repo, revision)
        if commit is None:
            return self.error(404, "RevisionNotFound")
        files = self.hub.commits[commit]
        if name not in files:
            return self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        data, etag = files[name], _etag(name, files[name])
        if not _is_large(name):
            return self.send(200, data, ETag=f'"{etag}"', X_Repo_Commit=commit)
        self.send(
            302,
            X_Repo_Commit=commit,
            X_Linked_ETag=f'"{etag}"',
            X_Linked_Size=str(len(data)),
            Location=f"http://localhost:{self.hub.port}/storage/{repo}/{etag}",
        )

    def storage(self, repo: str, etag: str) -> None:
        data, fault = self.hub.large[etag], self.hub.faults.get(repo)
        if "Authorization" in self.headers:
            return self.error(400, "TokenLeakedToStorage")
        start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        if fault == "wrong":
            data = bytes(len(data))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", f'"{etag}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if fault not in ("truncate", "stall"):
            step = self.hub.chunk or len(data)
            for at in range(start, len(data), step):
                self.wfile.write(data[at : at + step])
                time.sleep(self.hub.pause)
            return
        self.wfile.write(data[start : len(data) // 2])
        self.wfile.flush()
        if fault == "stall":
            self.hub.closing.wait(60)
        self.close_connection = True

    def revision(self, repo: str, revision: str = "main") -> None:
        if self.failed(repo):
            return
        commit = self.hub.commit_of(repo, revision)
        if commit is None:
            return self.error(404, "RevisionNotFound")
        names = [{"rfilename": name} for name in self.hub.commits[commit]]
        self.json({"_id": "0", "id": repo, "modelId": repo, "sha": commit, "siblings": names, "private": False, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, repo: str, revision: str) -> None:
        if self.failed(repo):
            return
        rows = []
        for name, data in self.hub.commits[self.hub.commit_of(repo, revision)].items():
            row = {"type": "file", "path": name, "size": len(data), "oid": _etag(name, data)}
            rows.append({**row, "lfs": {"oid": _etag(name, data), "size": len(data), "pointerSize": 130}} if _is_large(name) else row)
        self.json(rows)

    def create(self) -> None:
        asked = json.loads(self.read())
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if "Authorization" not in self.headers:
            return self.error(401)
        self.hub.private[repo] = asked.get("visibility") == "private" or bool(asked.get("private"))
        known = repo in self.hub.repos
        self.hub.repos.setdefault(repo, {})
        url = f"http://127.0.0.1:{self.hub.port}/{repo}"
        self.json({"url": url, "name": repo} if not known else {"error": "You already created this repo", "url": url}, 409 if known else 200)

    def validate(self) -> None:
        content = json.loads(self.read())["content"]
        good = content.startswith("---\n")
        self.json({"errors": [] if good else [{"message": "no metadata"}], "warnings": []}, 200 if good else 400)

    def preupload(self, repo: str, _revision: str) -> None:
        files = json.loads(self.read())["files"]
        self.json({"files": [{"path": f["path"], "uploadMode": "lfs" if _is_large(f["path"]) else "regular", "shouldIgnore": False} for f in files]})

    def batch(self, repo: str) -> None:
        objects = []
        for o in json.loads(self.read())["objects"]:
            base = f"http://127.0.0.1:{self.hub.port}/lfs"
            actions = {"upload": {"href": f"{base}/{o['oid']}"}, "verify": {"href": f"{base}/{repo}/verify"}}
            objects.append({"oid": o["oid"], "size": o["size"], "actions": actions})
        self.json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        data = self.read()
        if hashlib.sha256(data).hexdigest() != oid:
            return self.error(400, "BadDigest")
        self.hub.large[oid] = data
        self.send(200)

    def verify(self, _repo: str) -> None:
        asked = json.loads(self.read())
        self.send(200 if len(self.hub.large.get(asked["oid"], b"")) == asked["size"] else 404)

    def commit(self, repo: str, revision: str) -> None:
        files = dict(self.hub.commits.get(self.hub.commit_of(repo, revision), {}))
        for line in self.read().decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commit = self.hub.put(repo, files, revision)
        self.json({"success": True, "commitOid": commit, "commitUrl": f"http://127.0.0.1:{self.hub.port}/{repo}/commit/{commit}", "hookOutput": ""})


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES = (
    ("GET", r"/api/agent-harnesses", lambda h: h.json({})),
    ("GET", rf"/api/models/{_REPO}/revision/(.+)", _Handler.revision),
    ("GET", rf"/api/models/{_REPO}/tree/(.+)", _Handler.tree),
    ("GET", rf"/api/models/{_REPO}", _Handler.revision),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{_REPO}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(.+)", _Handler.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler.upload),
    ("POST", rf"/lfs/{_REPO}/verify", _Handler.verify),
    ("GET HEAD", rf"/storage/{_REPO}/([0-9a-f]{{64}})", _Handler.storage),
    ("GET HEAD", rf"/{_REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        """A client that gives up in the middle is what is tested here."""


class FakeHub:
    """`url`; `repos` name -> {branch: commit}; `commits` commit -> {file: bytes}; `faults` name -> fault; `requests` "METHOD /path" in order."""

    def __init__(self):
        self.repos: dict[str, dict[str, str]] = {}
        self.commits: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.agents: set[str] = set()
        self.chunk, self.pause = 0, 0.0  # bytes at a time, seconds between
        self.closing = threading.Event()

    def __enter__(self) -> "FakeHub":
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def put(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit of `repo` that holds exactly `files`; returns its name."""
        commit = hashlib.sha1(repr((repo, len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.repos.setdefault(repo, {})[branch] = commit
        self.large.update({_etag(name, data): data for name, data in files.items() if _is_large(name)})
        return commit

    def commit_of(self, repo: str, revision: str) -> str | None:
        return self.repos.get(repo, {}).get(revision, revision if revision in self.commits else None)
