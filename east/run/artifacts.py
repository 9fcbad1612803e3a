"""A folder on disk and whether it can be trusted: manifest, fingerprint, atomic write.

Every stage writes one folder. `manifest.json` is written last and the folder renamed into place, so its presence means
complete. It records what the folder was made from (`config`, `inputs`) and what it holds (`files` with sizes and
SHA-256). The fingerprint covers all of that, and neither time nor host. Which folders there are: `run/pipeline.py`.
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
GENERATION = "generation_config.json"
# Suffixes of the files that decide what a model computes and how its text becomes tokens
DECIDING = {".safetensors", ".bin", ".model", ".tiktoken", ".json", ".jinja", ".py"}
ANY: Any = object()  # the value of a setting that a reader does not know and accepts as it is


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a complete folder says of itself. `inputs` maps names to the fingerprints of what it was made from."""

    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]
    files: dict[str, dict[str, Any]]
    summary: dict[str, Any]
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Artifact:
    """One folder of a run: what it is made from, and the command that makes it (it goes into errors).

    settings: what decides its content besides `inputs`; None accepts any, as ANY does for a single one.
    inputs: fingerprints of what it is made from; `open` compares the named ones only.
    """

    kind: str
    folder: Path
    settings: dict[str, Any] | None
    inputs: dict[str, str]
    command: str

    def exists(self) -> bool:
        """Whether the folder is complete, whatever it was made from."""
        return (self.folder / MANIFEST).exists()

    def complete(self) -> bool:
        """True if the folder is complete and made from exactly this; False if there is none, or a torn one.

        Raises ValueError when it was made from something else: nothing is overwritten silently.
        """
        assert self.settings is not None and not any(value is ANY for value in self.settings.values())
        if not self.exists():
            return False
        manifest = self._read()
        self._compare(manifest.config, manifest.inputs)
        return True

    def open(self) -> Manifest:
        """The manifest of the complete folder.

        Raises ValueError when it is missing or incomplete, of another kind, a file lacks its recorded size, or it was
        made from something else.
        """
        manifest = self._read()
        self._compare(manifest.config, {name: manifest.inputs.get(name) for name in self.inputs})
        return manifest

    def verify(self, manifest: Manifest) -> None:
        """Hash every file of the folder. Raises ValueError naming the first whose content has changed."""
        for name, entry in manifest.files.items():
            if files.file_digest(self.folder / name) != entry["sha256"]:
                raise ValueError(
                    f"{self.folder / name}: content differs from its manifest; delete {self.folder} and run "
                    f"`{self.command}`"
                )

    def claim(self) -> None:
        """Mark a folder that grows in place (samples, a training run) with what it is made from.

        The first call writes `plan.json`; later ones compare. Raises ValueError when they differ.
        """
        path = self.folder / PLAN
        plan = {"config": _plain(self.settings or {}), "inputs": self.inputs}
        with files.disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            files.write_text(path, json.dumps(plan, indent=1) + "\n")
            return
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
            config, inputs = dict(begun["config"]), dict(begun["inputs"])
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            raise ValueError(f"{path}: not a plan; delete {self.folder} and run `{self.command}`") from None
        self._compare(config, inputs)

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Write the folder atomically: yields (temporary folder, summary dict to fill).

        On success its files are hashed, the manifest written and the folder renamed into place; on failure the
        temporary folder is removed and the old state is as before.
        Raises ValueError when the disk is full or not writable.
        """
        folder = self.folder
        scratch = folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}")
        summary: dict[str, Any] = {}
        try:
            with files.disk_errors(folder):
                _remove_abandoned(scratch)
                scratch.mkdir(parents=True)
                yield scratch, summary
                written = dataclasses.replace(self, folder=scratch).finish(summary)
                if self.exists() and self._read().fingerprint == written.fingerprint:
                    return  # another process was first, and someone may be reading
                if folder.exists():  # a torn folder without manifest
                    shutil.rmtree(folder)
                scratch.rename(folder)
                files.sync(folder.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def finish(self, summary: dict[str, Any]) -> Manifest:
        """Hash the files of the folder and write its manifest, which declares it complete."""
        hashed = {}
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file() and p.name != MANIFEST):
            entry = {"bytes": path.stat().st_size, "sha256": files.file_digest(path)}
            hashed[path.relative_to(self.folder).as_posix()] = entry
        config = _plain(self.settings or {})
        identity = {"kind": self.kind, "format": FORMAT, "config": config, "inputs": self.inputs}
        fingerprint = files.digest({**identity, "files": {n: f["sha256"] for n, f in hashed.items()}})
        written = {**identity, "files": hashed, "summary": summary, "fingerprint": fingerprint}
        written["made"] = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": socket.gethostname()}
        files.write_text(self.folder / MANIFEST, json.dumps(written, indent=1) + "\n")
        return Manifest(self.kind, config, self.inputs, hashed, summary, fingerprint)

    def _read(self) -> Manifest:
        path, remake = self.folder / MANIFEST, f"delete {self.folder} and run `{self.command}`"
        if not path.exists():
            state = "is incomplete" if self.folder.exists() else "does not exist"
            raise ValueError(f"{self.folder} ({self.kind}) {state}; make it with `{self.command}`")
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            version = written["format"]
            manifest = Manifest(**{f.name: written[f.name] for f in dataclasses.fields(Manifest)})
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
            raise ValueError(f"{path}: not a manifest; {remake}") from None
        if (manifest.kind, version) != (self.kind, FORMAT):
            raise ValueError(
                f"{self.folder}: found kind {manifest.kind!r}, format {version}; expected {self.kind!r}, format "
                f"{FORMAT}; point to another folder, or {remake}"
            )
        for name, entry in manifest.files.items():
            size = (self.folder / name).stat().st_size if (self.folder / name).exists() else None
            if size != entry["bytes"]:
                found = "no file" if size is None else f"{size} bytes"
                raise ValueError(f"{self.folder / name}: found {found}, expected {entry['bytes']} bytes; {remake}")
        return manifest

    def _compare(self, config: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Raise ValueError when the folder's config or inputs are not this artifact's, in the one wording for it."""
        expected = {**_plain(self.settings or {}), **self.inputs}
        config = {} if self.settings is None else config
        found = {**{k: v for k, v in config.items() if (self.settings or {}).get(k) is not ANY}, **inputs}
        if found != expected:
            raise ValueError(
                f"{self.folder} ({self.kind}) was made from something else: {difference(found, expected)}; give the "
                f"run file these settings, choose another run or name, or delete it (rm -r {self.folder}) and run "
                f"`{self.command}` again"
            )


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The keys in which two nested dicts differ, dotted, in words."""
    found, expected = _flat(found), _flat(expected)
    keys = [k for k in {**found, **expected} if found.get(k) != expected.get(k)]
    shown = [f"{k}: found {_short(found.get(k))}, expected {_short(expected.get(k))}" for k in keys[:3]]
    return "; ".join(shown) + (f" (and {len(keys) - 3} more)" if len(keys) > 3 else "")


def model_digest(folder: Path) -> str:
    """Hash of what decides a model's log-probabilities and tokens: weights, config, adapter, code, tokenizer, chat
    templates, and the end tokens of generation_config.json, whose other settings are defaults for sampling."""
    names = [p for p in folder.iterdir() if p.suffix in DECIDING or p.name in ("merges.txt", "vocab.txt")]
    names += (folder / "additional_chat_templates").glob("*.jinja")
    skipped = {MANIFEST, PLAN, GENERATION}
    hashes = {p.relative_to(folder).as_posix(): files.file_digest(p) for p in names if p.name not in skipped}
    return files.digest({**hashes, GENERATION: listed_end_tokens(folder)})


def listed_end_tokens(folder: Path) -> Any:
    """`eos_token_id` of generation_config.json as it is written there; None without the file. Raises ValueError for a
    file that is no JSON object."""
    path = folder / GENERATION
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: not a JSON object; fix or remove the file") from None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from disk (tuples become lists), without the settings that a reader does not know."""
    plain: dict[str, Any] = json.loads(json.dumps({k: v for k, v in config.items() if v is not ANY}))
    return plain


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _remove_abandoned(scratch: Path) -> None:
    """Remove the temporary folders that killed processes of this host left for the same target folder."""
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
