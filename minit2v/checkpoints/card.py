"""Model cards: the README.md of a published model, with a front matter that the hub reads.

    ---
    license: cc-by-nc-4.0
    library_name: minit2v
    pipeline_tag: text-to-video
    datasets: [owner/name]
    ---

What a README.md says already stays, and only what it lacks is added.
"""

import os
from pathlib import Path

from minit2v.checkpoints.adapters import CONFIG
from minit2v.checkpoints.find import find_source
from minit2v.checkpoints.reading import inside, read_json
from minit2v.errors import UserError
from minit2v.files import read_text

LIBRARY, TASK = "minit2v", "text-to-video"


def card(folder: str | Path, name: str, license: str | None = None, datasets: tuple[str, ...] = ()) -> str:
    """The card of a model or an adapter in a folder, published under a name.

    `license` is an identifier of the hub ("apache-2.0"), `datasets` are names of the hub. Raises UserError if neither
    the caller nor the folder's README.md names a licence.
    """
    from huggingface_hub import ModelCard, ModelCardData

    folder, said = Path(folder), {}
    written = inside(folder, folder / "README.md")
    if os.path.lexists(written) and not written.is_file():
        raise UserError(f"{folder / 'README.md'}: expected a text, found no file but something else; move it away")
    text = read_text(written) if written.is_file() else body(folder, name)
    if text.startswith("---"):
        try:
            found = ModelCard(text, ignore_metadata_errors=True)
            said = found.data.to_dict()
        except Exception as error:  # of the YAML reader, or of a front matter that is no dictionary
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{folder / 'README.md'}: expected a front matter of YAML, found {reason}; mend it") from None
        text = found.text
    given = {"license": license, "datasets": list(datasets) or None}
    known, model = {"library_name": LIBRARY, "pipeline_tag": TASK}, base(folder)
    if model and "/" in model:
        known["base_model"] = model
    said = known | said | {key: value for key, value in given.items() if value}
    if not said.get("license"):
        raise UserError(f"{folder}: expected a licence, found none; name it with --license, as cc-by-4.0, or in the front "
                        "matter of a README.md")  # fmt: skip
    return f"---\n{ModelCardData(**said, ignore_metadata_errors=True).to_yaml()}\n---\n\n{text.lstrip()}"


def base(folder: Path) -> str | None:
    """The model that an adapter belongs to; None for a whole model, and where it is not said."""
    found = read_json(inside(folder, folder / CONFIG)).get("base_model_name_or_path") if (folder / CONFIG).is_file() else None
    return found if isinstance(found, str) else None


def body(folder: Path, name: str) -> str:
    """What a card says where nobody has written one: what it is, and how to use it."""
    if (folder / CONFIG).is_file():
        model = base(folder) or "MODEL"
        what = f"A low-rank adapter (LoRA) of the text-to-video model {model}, in PEFT's layout."
        use = f"minit2v sample \"a prompt\" --model {model} --lora {name}"
    else:
        preset = find_source(folder).preset
        size = f"{preset.frames} frames of {preset.width} x {preset.height} pixels"
        what = f"A text-to-video model of the system {preset.system}: {size}, {preset.fps:g} a second."
        use = f"minit2v sample \"a prompt\" --model {name}"
    return f"# {name.rpartition('/')[2]}\n\n{what}\n\n```\n{use}\n```\n"
