"""A Hub on this machine, for tests: the endpoints that pushing and loading models use, kept in memory.

Commits are all or nothing, as on the Hub. A test can see every request, and make any endpoint fail.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

WRITER, READER, STRANGER = "hf_writer", "hf_reader", "hf_stranger"
"""Tokens: of someone who may write, the same person's for reading only, and of somebody else."""
USERS = {WRITER: "someone", READER: "someone", STRANGER: "stranger"}
LICENSES = {"apache-2.0", "cc-by-4.0", "mit", "other", "unknown"}
LFS_SUFFIXES = (".safetensors", ".jpg", ".png", ".bin")


@dataclass(frozen=True)
class Commit:
    """A state of a repository; a branch is a list of them."""

    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repository:
    """A model repository: its branches, and the large files that were uploaded to it."""

    private: bool
    branches: dict[str, list[Commit]]
    large_files: dict[str, bytes] = field(default_factory=dict)

    def commit(self, revision: str) -> Commit | None:
        """The head of a branch, or the commit of that oid."""
        if revision in self.branches:
            return self.branches[revision][-1]
        commits = (commit for commits in self.branches.values() for commit in commits)
        return next((commit for commit in commits if commit.oid == revision), None)


class HubServer:
    """The server; `with HubServer() as server:` runs it in a thread.

    Attributes:
        repositories: by "owner/name".
        requests: (method, name of the endpoint, path) of every request, in order.
        failures: name of an endpoint -> status to answer instead, or 0 to hang up without an answer.
    """

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.failures: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def asked(self, endpoint: str) -> list[str]:
        """The paths of the requests to an endpoint."""
        return [path for _, name, path in self.requests if name == endpoint]

    def head(self, repo: str, branch: str = "main") -> Commit:
        """The newest commit of a branch."""
        return self.repositories[repo].branches[branch][-1]


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, body: dict | None = None):
        super().__init__(message)
        self.status, self.code, self.body = status, code, body or {"error": message}


@dataclass
class Answer:
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _json(content: Any) -> Answer:
    return Answer(json.dumps(content).encode(), {"Content-Type": "application/json"})


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _respond(self) -> None:
        path = urlsplit(self.path).path
        endpoint, handle, groups = next(
            (
                (name, handle, [unquote(group) for group in match.groups()])
                for methods, name, pattern, handle in ENDPOINTS
                if self.command in methods.split("|") and (match := re.fullmatch(pattern, path))
            ),
            ("unknown", None, []),
        )
        self.hub.requests.append((self.command, endpoint, path))
        body = self._body()
        failure = self.hub.failures.get(endpoint)
        if failure == 0:
            self.close_connection = True
            return
        try:
            if failure:
                raise Refused(failure, "broken on purpose")
            if handle is None:
                raise Refused(404, f"no endpoint {self.command} {path}")
            status, answer = 200, handle(self, body, *groups)
        except Refused as refused:
            status, answer = refused.status, _json(refused.body)
            answer.headers["X-Error-Message"] = str(refused)
            if refused.code:
                answer.headers["X-Error-Code"] = refused.code
        self._send(status, answer)

    do_GET = do_HEAD = do_POST = do_PUT = _respond

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, answer: Answer) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    # ---- who may do what ----

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def check_writer(self, owner: str) -> None:
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        if self.token not in USERS:
            raise Refused(401, "Invalid credentials in Authorization header")
        if USERS[self.token] != owner or self.token == READER:
            raise Refused(403, f"You don't have the rights to write under the namespace {owner}")

    def repository(self, repo: str) -> Repository:
        found = self.hub.repositories.get(repo)
        if self.token is not None and self.token not in USERS:
            raise Refused(401, "Invalid credentials in Authorization header")
        if found is None or (found.private and USERS.get(self.token or "") != repo.split("/")[0]):
            raise Refused(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return found

    def commit_at(self, repo: str, revision: str) -> Commit:
        commit = self.repository(repo).commit(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit


def create_repository(request: _Handler, body: bytes) -> Answer:
    asked = json.loads(body)
    if request.token not in USERS:
        request.check_writer("nobody")
    owner = asked.get("organization") or USERS[request.token]
    repo = f"{owner}/{asked['name']}"
    request.check_writer(owner)
    url = f"{request.hub.url}/{repo}"
    if repo in request.hub.repositories:
        raise Refused(409, "You already created this model repo", body={"error": "exists", "url": url})
    # The name of the field depends on the version of the client.
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    first = Commit(hashlib.sha1(repo.encode()).hexdigest(), "initial commit", {".gitattributes": b"* text=auto\n"})
    request.hub.repositories[repo] = Repository(private, {"main": [first]})
    return _json({"url": url})


def create_branch(request: _Handler, body: bytes, repo: str, name: str) -> Answer:
    request.check_writer(repo.split("/")[0])
    branches = request.repository(repo).branches
    if name in branches:
        raise Refused(409, "Reference already exists")
    branches[name] = [*branches["main"]]
    return _json({})


def validate_card(request: _Handler, body: bytes) -> Answer:
    content = json.loads(body)["content"]
    header = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    metadata = yaml.safe_load(header.group(1)) if header else {}
    problems = []
    if metadata.get("license", "unknown") not in LICENSES:
        problems.append(f'"license" must be one of {", ".join(sorted(LICENSES))}')
    for name in [metadata.get("base_model") or "a/b", *metadata.get("datasets", [])]:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            problems.append(f"{name!r} is not a repository")
    for entry in metadata.get("model-index", []):
        for result in entry["results"]:
            if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
                problems.append("model-index: a task and a data set are needed")
            if not all(isinstance(metric["value"], int | float) for metric in result["metrics"]):
                problems.append("model-index: a value is not a number")
    if problems:
        errors = [{"message": problem} for problem in problems]
        raise Refused(400, "Invalid metadata in README.md", body={"errors": errors, "warnings": []})
    return _json({"errors": [], "warnings": []})


def model_info(request: _Handler, body: bytes, repo: str, revision: str = "main") -> Answer:
    commit = request.commit_at(repo, revision)
    return _json(
        {
            "id": repo,
            "private": request.repository(repo).private,
            "sha": commit.oid,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            "tags": [],
            "downloads": 0,
            "pipeline_tag": "object-detection",
        }
    )


def tree(request: _Handler, body: bytes, repo: str, revision: str) -> Answer:
    files = request.commit_at(repo, revision).files
    return _json(
        [
            {"type": "file", "path": path, "size": len(content), "oid": oid(path, content)}
            for path, content in files.items()
        ]
    )


def paths_info(request: _Handler, body: bytes, repo: str, revision: str) -> Answer:
    return tree(request, body, repo, revision)


def is_large(path: str) -> bool:
    return path.endswith(LFS_SUFFIXES)


def oid(path: str, content: bytes) -> str:
    """What identifies a file: the SHA-256 of a large one, git's object id of any other."""
    if is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def preupload(request: _Handler, body: bytes, repo: str, revision: str) -> Answer:
    request.check_writer(repo.split("/")[0])
    present = request.commit_at(repo, revision).files
    files = []
    for asked in json.loads(body)["files"]:
        path = asked["path"]
        answer = {"path": path, "uploadMode": "lfs" if is_large(path) else "regular", "shouldIgnore": False}
        if path in present:
            answer["oid"] = oid(path, present[path])
        files.append(answer)
    return _json({"files": files})


def large_file_batch(request: _Handler, body: bytes, repo: str) -> Answer:
    request.check_writer(repo.split("/")[0])
    stored = request.repository(repo).large_files
    objects = []
    for item in json.loads(body)["objects"]:
        href = f"{request.hub.url}/storage/{repo}/{item['oid']}"
        actions = {} if item["oid"] in stored else {"actions": {"upload": {"href": href, "header": {}}}}
        objects.append({**item, **actions})
    return _json({"transfer": "basic", "objects": objects})


def store_large_file(request: _Handler, body: bytes, repo: str, name: str) -> Answer:
    if hashlib.sha256(body).hexdigest() != name:
        raise Refused(400, "the content is not what its name says")
    request.hub.repositories[repo].large_files[name] = body
    return Answer()


def commit(request: _Handler, body: bytes, repo: str, revision: str) -> Answer:
    request.check_writer(repo.split("/")[0])
    repository, parent = request.repository(repo), request.commit_at(repo, revision)
    lines = [json.loads(line) for line in body.splitlines()]
    header = lines[0]["value"]
    if header.get("parentCommit", parent.oid) != parent.oid:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(parent.files)
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "deletedFile":
            if files.pop(value["path"], None) is None:
                raise Refused(400, "A file with this name doesn't exist")
        elif line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile" and value["oid"] in repository.large_files:
            files[value["path"]] = repository.large_files[value["oid"]]
        else:
            raise Refused(400, f"cannot commit {line['key']} {value}")
    name = hashlib.sha1(parent.oid.encode() + body).hexdigest()
    repository.branches[revision].append(Commit(name, header["summary"], files))
    return _json({"success": True, "commitOid": name, "commitUrl": f"{request.hub.url}/{repo}/commit/{name}"})


def resolve(request: _Handler, body: bytes, repo: str, revision: str, path: str) -> Answer:
    commit = request.commit_at(repo, revision)
    headers = {"X-Repo-Commit": commit.oid}
    if path not in commit.files:
        raise Refused(404, "Entry not found", "EntryNotFound")
    content = commit.files[path]
    headers["ETag"] = f'"{oid(path, content)}"'
    if is_large(path):
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
    return Answer(content, headers)


_REPO = r"([^/]+/[^/]+)"
ENDPOINTS: list[tuple[str, str, str, Callable[..., Answer]]] = [
    ("POST", "create", "/api/repos/create", create_repository),
    ("POST", "validate", "/api/validate-yaml", validate_card),
    ("POST", "branch", f"/api/models/{_REPO}/branch/([^/]+)", create_branch),
    ("GET", "info", f"/api/models/{_REPO}", model_info),
    ("GET", "info", f"/api/models/{_REPO}/revision/([^/]+)", model_info),
    ("GET", "tree", f"/api/models/{_REPO}/tree/([^/]+)", tree),
    ("POST", "paths", f"/api/models/{_REPO}/paths-info/([^/]+)", paths_info),
    ("POST", "preupload", f"/api/models/{_REPO}/preupload/([^/]+)", preupload),
    ("POST", "batch", rf"/{_REPO}\.git/info/lfs/objects/batch", large_file_batch),
    ("PUT", "storage", rf"/storage/{_REPO}/(\w+)", store_large_file),
    ("POST", "commit", f"/api/models/{_REPO}/commit/([^/]+)", commit),
    ("HEAD|GET", "resolve", rf"/{_REPO}/resolve/([^/]+)/(.+)", resolve),
]
