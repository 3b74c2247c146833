"""Pushes a model folder to the Hub. Everything arrives in one commit, or nothing does."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from yaml import YAMLError

from ..files import read_json
from ..loading import clear_loading_errors
from ..modeling.configuration import HfDetrConfig
from .model_card import CARD_NAME, card_for_repository, card_without_evidence
from .options import PushOptions
from .remote_code import add_code, code_files

SHARED_RESULTS = ("results.csv", "results.png", "pictures/*")
"""The files of a run, beside the model, that are worth sharing."""
_REPLACED = ("*.safetensors", SAFE_WEIGHTS_INDEX_NAME, "pictures/*")
"""Files that must not stay from an earlier push: their weights would be loaded, and their pictures would mislead."""
_TOKEN_REMEDY = (
    "make one with write permission at {endpoint}/settings/tokens, then run `hf auth login` or set HF_TOKEN"
)


@dataclass(frozen=True)
class HubRepository:
    """A repository that exists: its full name "owner/name", a branch, its newest commit, and the files there."""

    name: str
    branch: str
    commit: str | None
    files: tuple[str, ...]


def push_folder(options: PushOptions, api: HfApi | None = None) -> CommitInfo:
    """Push a model folder, as `hf-detr train` writes it, to a repository on the Hub.

    Weights, configuration, image processor, model card, results and pictures go there in one commit: until it
    succeeds, the repository is as it was. Files that did not change are not sent; weights and pictures of an earlier
    push that the folder has no longer are removed; other files in the repository stay. The card is pushed with the
    name of the repository in it; the folder itself is not changed.

    Args:
        options: the folder, the repository, and how to push.
        api: the client. Without it, the environment decides (HF_ENDPOINT, HF_TOKEN).

    Returns:
        the commit. Where nothing had changed, it is the commit that was there already.

    Raises:
        ValueError: the folder holds no finished model (nothing is requested then), or the Hub refuses: no or a wrong
            token, no permission, a bad name, invalid metadata, no connection. The message names the remedy.
    """
    folder, branch = options.folder, options.branch
    files, card = model_files(folder), read_card(folder)
    api = api or HfApi(library_name="hf-detr")
    repository = open_repository(options.repo, private=options.private, branch=branch, api=api)
    with tempfile.TemporaryDirectory() as scratch, clear_hub_errors(repository.name, api):
        files |= staged_files(options, Path(scratch), card, repository.name)
        return api.create_commit(
            repository.name,
            [
                *(CommitOperationAdd(path, str(file)) for path, file in sorted(files.items())),
                *(CommitOperationDelete(path) for path in outdated_files(repository.files, files)),
            ],
            commit_message=options.message or "Push with hf-detr",
            revision=branch,
            parent_commit=repository.commit,
        )


def open_repository(
    repo: str, *, private: bool = False, branch: str = "main", api: HfApi | None = None
) -> HubRepository:
    """Make sure that a repository and a branch exist and that the token may write there.

    Raises:
        ValueError: see `push_folder`.
    """
    api = api or HfApi(library_name="hf-detr")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is not a name for a repository, expected owner/name: {error}") from error
    if not (api.token or get_token()):
        raise ValueError(f"no token for {api.endpoint}: {_TOKEN_REMEDY.format(endpoint=api.endpoint)}")
    with clear_hub_errors(repo, api):
        name = _existing(repo, api) or api.create_repo(repo, private=private or None, exist_ok=True).repo_id
        if private and not api.repo_info(name).private:
            raise ValueError(
                f"{name} exists and is public: make it private in its settings, choose another name, or push without "
                "asking for a private one"
            )
        if branch != "main":
            api.create_branch(name, branch=branch, exist_ok=True)
        info = api.repo_info(name, revision=branch)
        # This asks how a file would be sent, which the Hub tells only to users who may write; nothing is sent.
        api.preupload_lfs_files(name, [CommitOperationAdd(CARD_NAME, b"-")], revision=branch)
        return HubRepository(
            name, branch, info.sha, tuple(file.rfilename for file in getattr(info, "siblings", None) or ())
        )


def _existing(repo: str, api: HfApi) -> str | None:
    """Return the full name of a repository, or None. It is asked first, as not every token may make a repository."""
    if "/" not in repo:
        return None
    try:
        return api.repo_info(repo).id
    except RepositoryNotFoundError:
        return None


def model_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that are pushed, by their paths in the repository.

    Raises:
        ValueError: a file of a finished model is missing or broken; the message names it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a model folder as `hf-detr train` writes it")
    config = folder / CONFIG_NAME
    if not config.is_file():
        unfinished = "; its run is unfinished: complete it with --resume" if (folder / "checkpoints").is_dir() else ""
        raise ValueError(f"{folder} is no finished model: {CONFIG_NAME} is missing{unfinished}")
    model_type = read_json(config).get("model_type")
    if model_type != "hf_detr":
        raise ValueError(f"{config}: expected a model of type 'hf_detr', found {model_type!r}")
    paths = [CONFIG_NAME, IMAGE_PROCESSOR_NAME, *_weights(folder)]
    for path in paths:
        if not (folder / path).is_file():
            raise ValueError(f"{folder} is no finished model: {path} is missing")
    read_json(folder / IMAGE_PROCESSOR_NAME)
    for path in paths:
        if path.endswith(".safetensors"):
            _check_weights(folder / path)
    results = [file for pattern in SHARED_RESULTS for file in folder.glob(pattern) if file.is_file()]
    paths += [file.relative_to(folder).as_posix() for file in results]
    if (folder / CARD_NAME).is_file():
        paths += [CARD_NAME, *_linked_files(folder)]
    return {path: folder / path for path in paths}


def read_card(folder: Path) -> ModelCard:
    """Return the model card of a folder, or a card that says little where there is none.

    Raises:
        ValueError: the card is empty, or its metadata is no YAML.
    """
    file = folder / CARD_NAME
    if not file.is_file():
        with clear_loading_errors(folder):
            return card_without_evidence(HfDetrConfig.from_pretrained(folder))
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError(f"{file} is empty: write a model card, or delete the file to get one that says little")
    try:
        return ModelCard(text)
    except (ValueError, YAMLError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file}: its metadata, between the first two lines '---', is no YAML: {said}") from error


def staged_files(options: PushOptions, scratch: Path, card: ModelCard, repo: str) -> dict[str, Path]:
    """Write the files that differ in the repository from the folder to `scratch`; return them by path there."""
    named = card_for_repository(card, repo, license=options.license, with_code=options.with_code)
    named.save(scratch / CARD_NAME)
    if options.with_code:
        for name in (CONFIG_NAME, IMAGE_PROCESSOR_NAME):
            shutil.copy(options.folder / name, scratch)
        add_code(scratch)
    return {file.name: file for file in scratch.iterdir()}


def outdated_files(present: tuple[str, ...], pushed: dict[str, Path]) -> list[str]:
    """Return the files that an earlier push has left in the repository and that this push does not replace."""
    code = {file.name for file in code_files()}
    return [
        path
        for path in present
        if path not in pushed and (path in code or any(fnmatch(path, pattern) for pattern in _REPLACED))
    ]


@contextmanager
def clear_hub_errors(repo: str, api: HfApi) -> Iterator[None]:
    """Turn the errors of requests to the Hub into a `ValueError` of one line that says what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError(f"cannot reach {repo}: unset HF_HUB_OFFLINE, which forbids all requests") from error
    except (HTTPError, RuntimeError, ConnectionError) as error:
        # A failed upload of a large file raises a RuntimeError whose cause is the reason.
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise ValueError(_explanation(reason, repo, api)) from error


def _explanation(error: BaseException, repo: str, api: HfApi) -> str:
    if not isinstance(error, HfHubHTTPError):
        return (
            f"no answer from {api.endpoint} ({type(error).__name__}): check the connection and push again; files that "
            "arrived are not sent twice"
        )
    status = error.response.status_code
    if status == 401:
        return f"{api.endpoint} does not accept the token: {_TOKEN_REMEDY.format(endpoint=api.endpoint)}"
    if status == 403:
        return (
            f"the token may not write to {repo}: it needs write permission, and its owner must be the repository's "
            "or a member of that organization"
        )
    if status == 404:
        return f"{repo} is gone, or the token may not see it: check its name and the token's permissions"
    if status == 412:
        return f"{repo} was changed by somebody else in the meantime: push again"
    said = " ".join((error.server_message or "").split())
    if status < 500:
        return f"{api.endpoint} refused ({status}): {said or 'without a reason'}"
    return f"{api.endpoint} failed ({status}): push again later; files that arrived are not sent twice"


def _weights(folder: Path) -> list[str]:
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if (folder / SAFE_WEIGHTS_NAME).is_file() or not index.is_file():
        return [SAFE_WEIGHTS_NAME]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{index}: expected a 'weight_map' of tensors to files")
    return [SAFE_WEIGHTS_INDEX_NAME, *sorted(set(shards.values()))]


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as weights:
            if not weights.keys():
                raise ValueError(f"{file}: expected weights, found no tensor")
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file, or not all of one: {error}") from error


def _linked_files(folder: Path) -> list[str]:
    """The files inside the folder that the model card links to or shows."""
    links = re.findall(r"\]\(([^)\s#]+)", (folder / CARD_NAME).read_text(encoding="utf-8"))
    files = [(link, (folder / link).resolve()) for link in links if "://" not in link]
    root = folder.resolve()
    return [file.relative_to(root).as_posix() for _, file in files if file.is_file() and root in file.parents]
