"""Models of the Hugging Face hub: which names are theirs, their download into its cache, and the way there.

    "owner/name", revision ──► the hub's cache: only the files that are read ──► Source
    folder, licence ──► the files that are read, as safetensors alone, and a model card ──► "owner/name"
"""

import re
from collections.abc import Callable
from pathlib import Path

from minit2v.checkpoints import adapters
from minit2v.checkpoints.card import card
from minit2v.checkpoints.find import find_source
from minit2v.checkpoints.layouts import needed
from minit2v.checkpoints.reading import SUFFIXES, inside, read, read_json
from minit2v.checkpoints.source import Source
from minit2v.errors import UserError, one_line
from minit2v.files import read_text
from minit2v.ranges import Place, public

TIMEOUT = 20  # seconds until the hub answers
READERS = {".safetensors": read, ".json": read_json, ".txt": read_text}  # of what is published: suffix -> what reads it
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def on_hub(name: str | Path) -> bool:
    """Whether a name can only be that of a model of the hub ("owner/name"): not of a file, nor of a place here.

    >>> on_hub("ali-vilab/text-to-video-ms-1.7b"), on_hub("./owner/name"), on_hub("weights/unet.safetensors")
    (True, False, False)
    """
    name, is_file = str(name), str(name).endswith((*SUFFIXES, ".json"))
    return HUB_ID.fullmatch(name) is not None and not is_file and not Path(name).parent.is_dir()


def located(name: str | Path, half: bool = False, revision: str | None = None) -> Source:
    """The source of a shipped name, a folder, or a model of the hub, which is downloaded if it is not in the cache.

    `revision` is a branch, a tag or a commit of the hub. Raises UserError.
    """
    if on_hub(name):
        return Source(download(str(name), half, revision), half)
    if revision is not None:
        raise UserError(f"revision: expected with a model of the hub, found {name}, which is here; leave it out")
    return find_source(name, half)


def located_adapter(name: str | Path) -> Path:
    """The folder or file of an adapter, likewise. Raises UserError for a model of the hub that holds none."""
    if not on_hub(name):
        return Path(name)
    return snapshot(str(name), None, lambda files: [file for file in files if file in (adapters.CONFIG, *adapters.FILES)])


@public
def download(hub_id: str, half: bool, revision: str | None = None) -> Path:
    """The folder of a model of the hub; see `snapshot`."""
    return snapshot(hub_id, revision, lambda files: needed(files, half))


def snapshot(hub_id: str, revision: str | None, choose: Callable[[list[str]], list[str]]) -> Path:
    """The folder of a repository of the hub, downloaded into its cache if it is not there: only the files that `choose`
    picks of all names. Raises UserError if there is no such repository or revision, or no way to it."""
    from huggingface_hub import HfApi, snapshot_download

    try:  # one try: other calls try for half a minute, and tell of each
        files = [file.rfilename for file in HfApi().model_info(hub_id, revision=revision, timeout=TIMEOUT).siblings]
    except Exception as error:  # whatever the HTTP library of the day raises
        try:
            return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))  # before; now offline
        except Exception:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            which = f" at {revision!r}" if revision else ""
            raise UserError(f"found no folder {hub_id} here, and could not get a model of that name{which} from the "
                            f"Hugging Face hub ({reason}); check the name and the connection") from None  # fmt: skip
    wanted = choose(files)
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=wanted))
    except Exception as error:  # a server that breaks off, or sends something else
        raise UserError(f"could not download {hub_id} from the Hugging Face hub ({one_line(error, 200)}); try again, what is "
                        "complete is kept") from error  # fmt: skip


def push(folder: str | Path, hub_id: str, private: bool = False, license: str | None = None,
         datasets: tuple[str, ...] = ()) -> str:  # fmt: skip
    """Publish a model or an adapter as a model of the hub; returns the address of the commit.

    Only what loading reads goes there, and a model card: the folder's README.md, with a front matter that says licence,
    library, task and data sets (see `card`). Needs the hub's token, as `hf auth login` keeps it. Raises UserError,
    before anything is sent, for a folder of neither, files that are pickles, and no licence; and when the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if not HUB_ID.fullmatch(hub_id):
        raise UserError(f"push: expected a name of the hub like owner/name, found {hub_id!r}")
    folder, files = published(Path(folder))
    text = card(folder, hub_id, license, datasets)
    operations = [CommitOperationAdd(name, folder / name) for name in files]
    operations.append(CommitOperationAdd("README.md", text.encode()))
    try:
        api = HfApi()
        api.create_repo(hub_id, private=private, exist_ok=True)
        return str(api.create_commit(hub_id, operations, commit_message="Upload by minit2v").commit_url)
    except Exception as error:  # likewise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"push: the Hugging Face hub did not take {hub_id} ({reason}); check the name, the connection "
                        "and the token (hf auth login)") from None  # fmt: skip


@public
def published(folder: Place) -> tuple[Path, list[str]]:
    """The folder of a model or an adapter, and the names in it of the files that are published. Raises UserError."""
    folder = Path(folder)
    source = None if (folder / adapters.CONFIG).is_file() else find_source(folder)
    if source is None:
        files = [folder / adapters.CONFIG, folder / adapters.WEIGHTS]
    else:
        _refuse_shared(source, folder)
        folder, files = source.path, source.read_files()
        if source.layout == "diffusers":  # other programs read more of it
            files += [folder / name for name in source.files if "/" in name and name.endswith((".json", ".txt"))]
    for file in files:
        if not inside(folder, file).is_file():
            raise UserError(f"push: expected {file}, found none; get it again")
        if file.suffix in SUFFIXES and file.suffix != ".safetensors":
            raise UserError(f"push: expected safetensors, found {file}, a pickle; write the model again with minit2v "
                            f"weights convert {folder} DST --to minit2v")  # fmt: skip
        READERS[file.suffix](file)  # a damaged file is named here
    if source is None:
        adapters.check_adapter(folder)
    for network in source.networks if source else ():
        source[network]
    return folder, sorted({file.relative_to(folder).as_posix() for file in files})


def _refuse_shared(source: Source, name: Path) -> None:
    """Raises UserError for a shipped model that has networks in common with another, in whose folder they are."""
    owners = sorted({owner for network, owner in source.shared.items() if source.file(network).parent != source.folder})
    if owners:
        raise UserError(f"push: expected a model whose files are all in its folder, found {name}, which shares some with "
                        f"{', '.join(owners)}; write it whole with minit2v weights convert {name} DST --to minit2v, then push "
                        "DST")  # fmt: skip
