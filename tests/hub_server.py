"""A hub on loopback: the part of the Hugging Face hub's protocol that a download takes, over files of the test's own."""

import hashlib
import re

from serving import LoopbackHandler, LoopbackServer

COMMIT = "65584967c3f22ff7723e5370c65e0e76791e6055"


class _Handler(LoopbackHandler):
    def do_HEAD(self):
        self.loopback.answer(self, body=False)

    def do_GET(self):
        self.loopback.answer(self, body=True)


class Hub(LoopbackServer):
    """Serves `files` (name to bytes) of one repository; `requests` lists method, path and range of each request.

    `cut` is how many bytes of a file are sent before the connection breaks, once; `alter` sends other bytes of the same length.
    """

    def __init__(self, repo, files, *, cut=None, alter=False):
        super().__init__(_Handler)
        self.repo, self.files, self.cut, self.alter = repo, files, cut, alter

    def answer(self, request, *, body):
        self.requests.append((request.command, request.path, request.headers.get("Range")))
        path = request.path.split("?")[0]
        if path.startswith(f"/api/models/{self.repo}"):
            return request.answer(200, self.listing(path))
        found = re.fullmatch(rf"/{re.escape(self.repo)}/resolve/[^/]+/(.+)", path)
        if not found or found[1] not in self.files:
            return self.send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"}, body=body)
        return self.send_file(request, self.files[found[1]], large=not found[1].endswith(".json"), body=body)

    def listing(self, path):
        entries = [{"rfilename": name} for name in self.files]
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in self.files.items()]
        return {"id": self.repo, "sha": COMMIT, "siblings": entries, "tags": [], "downloads": 0, "likes": 0, "private": False}

    def send_file(self, request, data, *, large, body):
        digest = hashlib.sha256(data) if large else hashlib.sha1(f"blob {len(data)}\0".encode() + data)
        headers = {"ETag": f'"{digest.hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int((request.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        sent = bytes(byte ^ 1 for byte in data) if self.alter and large else data
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if body and large and self.cut is not None:
            cut, self.cut = self.cut, None
            self.send(request, 200, sent[:cut], headers | {"Content-Length": str(len(data))}, body=True)
            request.close_connection = True
            return
        self.send(request, 206 if start else 200, sent[start:], headers, body=body)

    def send(self, request, status, content, headers, *, body):
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content)
