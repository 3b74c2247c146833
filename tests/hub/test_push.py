"""Pushing a folder: what arrives, in one commit or not at all, and what is said when it cannot."""

import json
import re
from pathlib import Path

import pytest
import torch
from hub_server import READER, STRANGER, WRITER, HubServer
from huggingface_hub import HfApi, ModelCard, constants
from safetensors.torch import save_file
from typer.testing import CliRunner

from hf_detr.cli import app
from hf_detr.hub.options import PushOptions
from hf_detr.hub.push import open_repository, push_folder
from hf_detr.hub.remote_code import code_files

REPO = "someone/blood-cells"
PUSHED = {"README.md", "config.json", "model.safetensors", "pictures/1.jpg", "preprocessor_config.json", "results.csv"}
HUBS_OWN = {".gitattributes"}


def test_everything_arrives_in_one_commit(hub: HubServer, api: HfApi, folder: Path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "optimizer.pt").write_text("not for sharing")
    (folder / "notes.txt").write_text("not for sharing")
    commit = push_folder(PushOptions(folder=folder, repo=REPO, message="First"), api=api)
    head = hub.head(REPO)
    assert (commit.oid, head.message) == (head.oid, "First")
    assert len(hub.repositories[REPO].branches["main"]) == 2
    assert set(head.files) == PUSHED | HUBS_OWN
    for path in PUSHED - {"README.md"}:
        assert head.files[path] == (folder / path).read_bytes()
    assert {path: path.read_bytes() for path in before} == before
    assert not hub.repositories[REPO].private


def test_the_card_in_the_repository_is_about_the_repository(hub: HubServer, api: HfApi, folder: Path):
    push_folder(PushOptions(folder=folder, repo=REPO, license="cc-by-4.0"), api=api)
    card = ModelCard(hub.head(REPO).files["README.md"].decode())
    assert str(folder) not in card.content
    assert f'model="{REPO}"' in card.text
    assert card.text.lstrip().startswith("# blood-cells\n")
    assert card.data.license == "cc-by-4.0"
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert ModelCard(hub.head(REPO).files["README.md"].decode()).data.license == "unknown"


def test_what_did_not_change_is_not_sent_again(hub: HubServer, api: HfApi, folder: Path):
    first = push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert len(hub.asked("storage")) == 2  # the weights and the picture
    hub.requests.clear()
    again = push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert again.oid == first.oid
    assert hub.asked("storage") + hub.asked("commit") == []
    (folder / "results.csv").write_text("step,loss\n2,0.4\n")
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert hub.asked("storage") == []
    assert hub.head(REPO).files["results.csv"] == b"step,loss\n2,0.4\n"


def test_nothing_of_an_earlier_model_stays(hub: HubServer, api: HfApi, folder: Path):
    push_folder(PushOptions(folder=folder, repo=REPO, with_code=True), api=api)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="LICENSE", repo_id=REPO)
    (folder / "model.safetensors").unlink()
    shards = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    for shard in shards:
        save_file({shard: torch.zeros(1)}, folder / shard)
    index = {"metadata": {}, "weight_map": {shard: shard for shard in shards}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pictures" / "1.jpg").rename(folder / "pictures" / "2.jpg")
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    expected = PUSHED - {"model.safetensors", "pictures/1.jpg"}
    expected |= {*shards, "model.safetensors.index.json", "pictures/2.jpg", "LICENSE"}
    assert set(hub.head(REPO).files) == expected | HUBS_OWN


def test_code_is_added_only_when_asked(hub: HubServer, api: HfApi, folder: Path):
    push_folder(PushOptions(folder=folder, repo=REPO, with_code=True), api=api)
    files = hub.head(REPO).files
    assert set(files) == PUSHED | HUBS_OWN | {file.name for file in code_files()}
    auto_map = json.loads(files["config.json"])["auto_map"]
    assert auto_map["AutoModelForObjectDetection"] == "detection.HfDetrForObjectDetection"
    assert "AutoImageProcessor" in json.loads(files["preprocessor_config.json"])["auto_map"]
    assert "trust_remote_code=True" in files["README.md"].decode()
    assert "auto_map" not in (folder / "config.json").read_text()
    assert not list(folder.glob("*.py"))
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert set(hub.head(REPO).files) == PUSHED | HUBS_OWN
    assert "auto_map" not in hub.head(REPO).files["config.json"].decode()


def test_another_branch_leaves_main_alone(hub: HubServer, api: HfApi, folder: Path):
    push_folder(PushOptions(folder=folder, repo=REPO, branch="trial"), api=api)
    assert set(hub.head(REPO).files) == HUBS_OWN
    assert set(hub.head(REPO, "trial").files) == PUSHED | HUBS_OWN
    push_folder(PushOptions(folder=folder, repo=REPO, branch="trial"), api=api)  # it exists by now


def test_private_means_private(hub: HubServer, api: HfApi, folder: Path):
    push_folder(PushOptions(folder=folder, repo="someone/secret", private=True), api=api)
    assert hub.repositories["someone/secret"].private
    push_folder(PushOptions(folder=folder, repo="someone/secret"), api=api)  # a private repository stays one
    assert hub.repositories["someone/secret"].private
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    head = hub.head(REPO)
    (folder / "results.csv").write_text("secret")
    with pytest.raises(ValueError, match=f"{REPO} exists and is public"):
        push_folder(PushOptions(folder=folder, repo=REPO, private=True), api=api)
    assert hub.head(REPO) == head


def test_a_folder_without_a_card_gets_one_that_says_little(hub: HubServer, api: HfApi, folder: Path):
    (folder / "README.md").unlink()
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    text = hub.head(REPO).files["README.md"].decode()
    assert "Not evaluated." in text
    assert "Finding red, white" in text
    assert not (folder / "README.md").exists()


def test_a_picture_that_the_card_shows_goes_along_but_nothing_from_outside(hub: HubServer, api: HfApi, folder: Path):
    (folder / "plot.svg").write_text("<svg/>")
    (folder.parent / "private.txt").write_text("private")
    with (folder / "README.md").open("a") as card:
        card.write("\n![plot](plot.svg) [text](../private.txt) [gone](gone.png)\n")
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert set(hub.head(REPO).files) == PUSHED | HUBS_OWN | {"plot.svg"}


# ---- all or nothing ----


@pytest.mark.parametrize("status", [0, 403, 500])
@pytest.mark.parametrize("endpoint", ["branch", "info", "validate", "preupload", "batch", "storage", "commit"])
def test_a_failure_anywhere_leaves_the_repository_as_it_was(
    hub: HubServer, api: HfApi, folder: Path, endpoint: str, status: int
):
    push_folder(PushOptions(folder=folder, repo=REPO, branch="trial"), api=api)
    before = {name: list(commits) for name, commits in hub.repositories[REPO].branches.items()}
    save_file({"weight": torch.ones(9)}, folder / "model.safetensors")
    (folder / "results.csv").write_text("other")
    hub.failures[endpoint] = status
    with pytest.raises(ValueError, match=r"push again|may not write") as error:
        push_folder(PushOptions(folder=folder, repo=REPO, branch="trial"), api=api)
    assert "\n" not in str(error.value)
    assert hub.repositories[REPO].branches == before
    hub.failures.clear()
    push_folder(PushOptions(folder=folder, repo=REPO, branch="trial"), api=api)
    assert hub.head(REPO, "trial").files["results.csv"] == b"other"


@pytest.mark.parametrize("status", [0, 403, 500])
def test_a_failure_to_make_the_repository_makes_none(hub: HubServer, api: HfApi, folder: Path, status: int):
    hub.failures["create"] = status
    with pytest.raises(ValueError, match=r"push again|may not write"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert hub.repositories == {}


def test_a_token_that_may_not_make_repositories_pushes_to_an_existing_one(hub: HubServer, api: HfApi, folder: Path):
    open_repository(REPO, api=api)
    hub.failures["create"] = 403
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert set(hub.head(REPO).files) == PUSHED | HUBS_OWN


def test_a_push_does_not_undo_that_of_somebody_else(hub: HubServer, api: HfApi, folder: Path, monkeypatch):
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    (folder / "results.csv").write_text("other")
    create_commit = HfApi.create_commit

    def meanwhile(self, *arguments, **options):
        monkeypatch.undo()
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id=REPO)
        return create_commit(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", meanwhile)
    with pytest.raises(ValueError, match="changed by somebody else in the meantime: push again"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert hub.head(REPO).files["results.csv"] != b"other"
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert {"theirs.txt", *PUSHED} <= set(hub.head(REPO).files)


# ---- what is refused, and how ----


@pytest.mark.parametrize(
    ("token", "repo", "expected"),
    [
        ("hf_wrong", REPO, "does not accept the token: make one with write permission at {url}/settings/tokens"),
        (READER, REPO, f"the token may not write to {REPO}"),
        (STRANGER, REPO, f"the token may not write to {REPO}"),
        (WRITER, "some one/x", "'some one/x' is not a name for a repository, expected owner/name"),
        (WRITER, "a/b/c", "'a/b/c' is not a name for a repository"),
    ],
)
def test_refusals_name_the_remedy(hub: HubServer, folder: Path, token: str, repo: str, expected: str):
    with pytest.raises(ValueError, match=re.escape(expected.format(url=hub.url))) as error:
        push_folder(PushOptions(folder=folder, repo=repo), api=HfApi(endpoint=hub.url, token=token))
    assert len(str(error.value).splitlines()) == 1
    assert hub.repositories == {}


@pytest.mark.parametrize("token", ["hf_wrong", READER, STRANGER])
def test_an_existing_repository_of_another_is_not_written_to(hub: HubServer, api: HfApi, folder: Path, token: str):
    push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    (folder / "results.csv").write_text("other")
    head = hub.head(REPO)
    client = HfApi(endpoint=hub.url, token=token)
    for refused in (
        lambda: open_repository(REPO, api=client),
        lambda: push_folder(PushOptions(folder=folder, repo=REPO), api=client),
    ):
        with pytest.raises(ValueError, match=f"not accept the token|the token may not write to {REPO}"):
            refused()
    assert hub.head(REPO) == head


def test_without_a_token_nothing_is_asked(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"no token for .*hf auth login"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=HfApi(endpoint=hub.url))
    assert hub.requests == []


def test_without_a_connection(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with HubServer() as server:
        url = server.url
    with pytest.raises(ValueError, match=f"no answer from {url} .*check the connection"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=HfApi(endpoint=url, token=WRITER))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="unset HF_HUB_OFFLINE"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=HfApi(endpoint=url, token=WRITER))


def test_an_unknown_licence_is_refused_before_anything_is_sent(hub: HubServer, api: HfApi, folder: Path):
    with pytest.raises(ValueError, match='"license" must be one of'):
        push_folder(PushOptions(folder=folder, repo=REPO, license="free for all"), api=api)
    assert hub.asked("storage") + hub.asked("commit") == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_an_unfinished_folder_is_refused_before_any_request(hub: HubServer, api: HfApi, folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{folder} is no finished model: {name} is missing"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert hub.requests == []


def break_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (break_weights, "model.safetensors is no safetensors file, or not all of one"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
        (
            lambda folder: (folder / "config.json").write_text("[]"),
            "config.json: expected a JSON object, found a list",
        ),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "detr"}'), "'hf_detr', found 'detr'"),
        (lambda folder: (folder / "preprocessor_config.json").write_text(""), "preprocessor_config.json is not JSON"),
        (lambda folder: (folder / "README.md").write_text(" \n"), "README.md is empty"),
        (lambda folder: (folder / "README.md").write_text("---\na: [\n---\nx"), "README.md"),
    ],
)
def test_a_broken_folder_is_refused_before_any_request(hub: HubServer, api: HfApi, folder: Path, spoil, expected: str):
    spoil(folder)
    with pytest.raises(ValueError, match=re.escape(expected)):
        push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    assert hub.requests == []


def test_a_missing_shard_and_an_unfinished_run_are_named(hub: HubServer, api: HfApi, folder: Path):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"model-00001-of-00001\.safetensors is missing"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    (folder / "config.json").unlink()
    (folder / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"config.json is missing.*--resume"):
        push_folder(PushOptions(folder=folder, repo=REPO), api=api)
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        push_folder(PushOptions(folder=folder / "nowhere", repo=REPO), api=api)


# ---- the command ----


@pytest.fixture
def as_writer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user of the local Hub, for commands in this process."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", WRITER)


@pytest.mark.usefixtures("as_writer")
def test_the_command_pushes_and_says_where_to(hub: HubServer, folder: Path):
    arguments = [
        "push",
        str(folder),
        "blood-cells",
        "--private",
        "--with-code",
        "--branch",
        "trial",
        "--message",
        "Hi",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    head = hub.head(REPO, "trial")
    assert f"{hub.url}/{REPO}/commit/{head.oid}" in result.stdout
    assert head.message == "Hi"
    assert hub.repositories[REPO].private
    assert "detr.py" in head.files
    assert "--license" in result.stdout
    result = CliRunner().invoke(app, ["push", str(folder), REPO, "--licence", "mit"])
    assert result.exit_code == 0, result.output
    assert "--license" not in result.stdout
    assert ModelCard(hub.head(REPO).files["README.md"].decode()).data.license == "mit"


@pytest.mark.usefixtures("as_writer")
def test_the_command_refuses_in_one_line(hub: HubServer, folder: Path):
    (folder / "config.json").unlink()
    result = CliRunner().invoke(app, ["push", str(folder), REPO])
    assert result.exit_code == 2
    assert result.stderr.strip() == f"hf-detr: {folder} is no finished model: config.json is missing"
    assert hub.requests == []
