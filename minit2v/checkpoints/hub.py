"""Models of the Hugging Face hub: which of their files are read, and their download into its cache."""

import re
from pathlib import Path

from minit2v.checkpoints.folder import NETWORKS
from minit2v.checkpoints.layouts import candidates
from minit2v.errors import UserError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def on_hub(name: str | Path) -> bool:
    """Whether it names a model of the hub ("owner/name") and no folder here."""
    return HUB_ID.fullmatch(str(name)) is not None and not Path(name).parent.is_dir()


def download(hub_id: str, half: bool) -> Path:
    """The folder of a model of the Hugging Face hub, downloaded into its cache if it is not there: only the files that
    are read. Raises UserError if there is no such model, or no way to it."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().list_repo_files(hub_id)
    except Exception as error:  # whatever the HTTP library of the day raises
        try:
            return Path(snapshot_download(hub_id, local_files_only=True))  # downloaded before; now offline
        except Exception:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
            raise UserError(f"could not get {hub_id} ({reason}); check the name and the connection") from None
    return Path(snapshot_download(hub_id, allow_patterns=needed(files, half)))


def needed(files: list[str], half: bool) -> list[str]:
    """Which files of a released folder are read: one for each network (or its parts), and what describes them."""
    layout = "modelscope" if "text2video_pytorch_model.pth" in files else "diffusers"
    described = re.compile(r"(\w+/)?(config|model_index|configuration|scheduler_config)\.json")
    chosen = [name for name in files if described.fullmatch(name)]
    for network in NETWORKS:
        best = next((name for name in candidates(layout, network, half) if name in files), None)
        if best is None:
            raise UserError(f"expected a text-to-video model, found no {network} in its files; choose another")
        chosen.append(best)
        if best.endswith(".json"):  # its parts, of the same precision
            parts = [name for name in files if name.startswith(best.split("/")[0] + "/") and "-of-" in name]
            chosen += [name for name in parts if (".fp16" in name) == (".fp16" in best)]
    return chosen
