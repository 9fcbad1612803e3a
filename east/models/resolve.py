"""From `model.path` to a local folder."""

from pathlib import Path

from east.models import adapter, folder


def resolve(path: str, revision: str | None, merged: Path, trust: bool = False) -> Path:
    """The local folder of a model: `path` itself, or the snapshot of a hub name; for a PEFT adapter, a folder below
    `merged` in which it is merged with its base model.

    trust: run Python code that comes with the model (`model.trust_remote_code`).
    Raises ValueError when the hub name cannot be fetched, and for a folder without a model, with missing parts, with
    quantised weights, or with code of its own that is not trusted.
    """
    found = Path(path)
    if not found.exists():
        if path.count("/") != 1 or path.startswith((".", "/")):
            raise ValueError(
                f"model.path: found no folder {path!r}; set it to an existing folder or a hub name owner/model"
            )
        found = fetch(path, revision)
    if (found / folder.ADAPTER).exists():
        return adapter.merge(found, merged, lambda name, of: resolve(name, of, merged, trust), trust)
    folder.check(found, trust)
    return found


def fetch(name: str, revision: str | None) -> Path:
    """The snapshot of a hub name. Raises ValueError when it cannot be fetched."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, ignore_patterns=["original/*"]))
    except Exception as error:  # the hub client raises many types when it finds nothing
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"model.path: found no folder {name!r} and cannot fetch it from the hub ({line}); check the name, or "
            "download the model and set the folder"
        ) from None
