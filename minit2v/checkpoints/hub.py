"""Models of the Hugging Face hub: which names are theirs, and their download into its cache."""

import re
from pathlib import Path

from minit2v.checkpoints.layouts import needed
from minit2v.checkpoints.reading import SUFFIXES
from minit2v.errors import UserError
from minit2v.ranges import public

TIMEOUT = 20  # seconds until the hub answers
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def on_hub(name: str | Path) -> bool:
    """Whether a name can only be that of a model of the hub ("owner/name"): not of a file, nor of a place here.

    >>> on_hub("ali-vilab/text-to-video-ms-1.7b"), on_hub("./owner/name"), on_hub("weights/unet.safetensors")
    (True, False, False)
    """
    name, is_file = str(name), str(name).endswith((*SUFFIXES, ".json"))
    return HUB_ID.fullmatch(name) is not None and not is_file and not Path(name).parent.is_dir()


@public
def download(hub_id: str, half: bool) -> Path:
    """The folder of a model of the Hugging Face hub, downloaded into its cache if it is not there: only the files that
    are read. Raises UserError if there is no such model, or no way to it."""
    from huggingface_hub import HfApi, snapshot_download

    try:  # one try: other calls try for half a minute, and tell of each
        files = [file.rfilename for file in HfApi().model_info(hub_id, timeout=TIMEOUT).siblings]
    except Exception as error:  # whatever the HTTP library of the day raises
        try:
            return Path(snapshot_download(hub_id, local_files_only=True))  # downloaded before; now offline
        except Exception:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise UserError(f"found no folder {hub_id} here, and could not get a model of that name from the Hugging "
                            f"Face hub ({reason}); check the name and the connection") from None  # fmt: skip
    return Path(snapshot_download(hub_id, allow_patterns=needed(files, half)))
