"""What is on disk and whether it may be trusted: manifest, fingerprint, atomic write.

Every stage writes one folder. `manifest.json` is written last and the folder renamed into place, so its
presence means complete. It records what the folder was made from (`kind`, `config`, `inputs`) and what it
holds (`files` with sizes and SHA-256). The fingerprint covers all of that, and neither time nor host.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from east.run import files

FORMAT = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A complete folder. `inputs` maps names to the fingerprints of what it was made from."""

    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    summary: dict[str, Any]
    fingerprint: str


def read(folder: Path, kind: str, make: str) -> Manifest:
    """The manifest of a complete folder of this kind whose files have their recorded sizes.

    `make` is the command that would create it; it goes into the error. Raises ValueError otherwise.
    """
    path = folder / MANIFEST
    if not path.exists():
        state = "is incomplete" if folder.exists() else "does not exist"
        raise ValueError(f"{folder} ({kind}) {state}; make it with `{make}`")
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        found = written["format"]
        values = {f.name: written[f.name] for f in dataclasses.fields(Manifest)}
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path}: not a manifest; delete {folder} and run `{make}`") from None
    manifest = Manifest(**values)
    if (manifest.kind, found) != (kind, FORMAT):
        raise ValueError(
            f"{folder}: found kind {manifest.kind!r}, format {found}; expected {kind!r}, format {FORMAT}; "
            f"point to another folder, or delete it and run `{make}`"
        )
    for name, entry in manifest.files.items():
        size = (folder / name).stat().st_size if (folder / name).exists() else None
        if size != entry["bytes"]:
            raise ValueError(
                f"{folder / name}: found {'no file' if size is None else f'{size} bytes'}, expected "
                f"{entry['bytes']} bytes; delete {folder} and run `{make}`"
            )
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Hash every file of a folder. Raises ValueError naming the first whose content has changed."""
    for name, entry in manifest.files.items():
        if files.file_digest(folder / name) != entry["sha256"]:
            raise ValueError(f"{folder / name}: content differs from its manifest; delete {folder} and remake it")


def reusable(folder: Path, kind: str, config: dict[str, Any], inputs: dict[str, str], make: str) -> bool:
    """True if the folder is complete and made from just this; False if there is none (or a torn one).

    Raises ValueError when it was made from something else: nothing is overwritten silently.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = read(folder, kind, make)
    found, expected = {**manifest.config, **manifest.inputs}, {**_plain(config), **inputs}
    if found != expected:
        raise ValueError(
            f"{folder} ({kind}) was made from something else: {difference(found, expected)}; keep it by choosing "
            f"another run or name, or delete it (rm -r {folder}) and run `{make}` again"
        )
    return True


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The keys in which two nested dicts differ, dotted, in words."""
    found, expected = _flat(found), _flat(expected)
    keys = [k for k in {**found, **expected} if found.get(k) != expected.get(k)]
    shown = [f"{k}: found {_short(found.get(k))}, expected {_short(expected.get(k))}" for k in keys[:3]]
    return "; ".join(shown) + (f" (and {len(keys) - 3} more)" if len(keys) > 3 else "")


def claim(folder: Path, config: dict[str, Any], inputs: dict[str, str], make: str) -> None:
    """Mark a folder that grows in place (samples, a training run) with what it is made from.

    The first call writes `plan.json`; later ones compare. Raises ValueError when they differ.
    """
    path = folder / PLAN
    ours = {"config": _plain(config), "inputs": inputs}
    with files.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        files.write_text(path, json.dumps(ours, indent=1) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        theirs = {**found["config"], **found["inputs"]}
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path}: not a plan; delete {folder} and run `{make}`") from None
    expected = {**ours["config"], **inputs}
    if theirs != expected:
        raise ValueError(
            f"{folder} was begun from something else: {difference(theirs, expected)}; keep it by choosing another run "
            f"or name, or delete it (rm -r {folder}) and run `{make}` again"
        )


@contextlib.contextmanager
def writing(
    folder: Path, kind: str, config: dict[str, Any], inputs: dict[str, str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write a folder atomically: yields (temporary folder, summary dict to fill).

    On success its files are hashed, the manifest written and the folder renamed to `folder`; on failure the
    temporary folder is removed and `folder` is as before.
    Raises ValueError when the disk is full or not writable.
    """
    scratch = folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}")
    summary: dict[str, Any] = {}
    try:
        with files.disk_errors(folder):
            _remove_abandoned(scratch)
            scratch.mkdir(parents=True)
            yield scratch, summary
            made = complete(scratch, kind, config, inputs, summary)
            if (folder / MANIFEST).exists() and read(folder, kind, "the same command").fingerprint == made.fingerprint:
                return  # another process was first, and someone may be reading
            if folder.exists():  # a torn folder without manifest
                shutil.rmtree(folder)
            scratch.rename(folder)
            _sync(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def complete(
    folder: Path, kind: str, config: dict[str, Any], inputs: dict[str, str], summary: dict[str, Any]
) -> Manifest:
    """Hash the files of a folder and write its manifest, which declares it complete."""
    hashed = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        hashed[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": files.file_digest(path)}
    config = _plain(config)
    identity = {"kind": kind, "format": FORMAT, "config": config, "inputs": inputs}
    fingerprint = files.digest({**identity, "files": {n: f["sha256"] for n, f in hashed.items()}})
    written = {**identity, "files": hashed, "summary": summary, "fingerprint": fingerprint}
    written["made"] = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": socket.gethostname()}
    files.write_text(folder / MANIFEST, json.dumps(written, indent=1) + "\n")
    return Manifest(kind, config, inputs, hashed, summary, fingerprint)


def model_digest(folder: Path) -> str:
    """Hash of what decides a model's outputs: weights, config, adapter, tokenizer and chat template."""
    names = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin", ".model", ".json", ".jinja"})
    skipped = {MANIFEST, "README.md"}
    return files.digest({p.name: files.file_digest(p) for p in names if p.name not in skipped and p.is_file()})


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(config))  # tuples become lists, as they come back from disk


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _remove_abandoned(scratch: Path) -> None:
    """Remove the temporary folders that killed processes of this host left where `scratch` will stand."""
    prefix, _, own = scratch.name.rpartition("-")
    for path in scratch.parent.glob(f"{prefix}-*"):
        number = path.name.rpartition("-")[2]
        if number == own or (number.isdigit() and not _running(int(number))):
            shutil.rmtree(path, ignore_errors=True)


def _running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
