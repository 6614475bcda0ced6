"""Puts back the results that DVC removed before a run that failed; needs Python alone.

DVC deletes the outputs of a stage before it starts the command. What they were stands in dvc.lock,
their content in DVC's cache or in Git's last commit.
"""

from __future__ import annotations  # a Python that is too old has to get as far as saying so

import configparser
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from cifar100.running.outputs import replacing

LOCK = "dvc.lock"


def restore_outputs(stage: str, root: Path = Path()) -> dict[str, str]:
    """Put back each output that dvc.lock records for `stage`, if it is missing or another one.

    Returns the files that were not as recorded: with "" if one was put back, else with the reason
    why it could not be written. What is neither in the cache nor in Git stays as it is.
    """
    found: dict[str, str] = {}
    cache = cache_folder(root)
    for name, md5 in recorded_outputs(root).get(stage, {}).items():
        _restore(cache, md5, root, name, found)
    return found


def recorded_outputs(root: Path = Path()) -> dict[str, dict[str, str]]:
    """The outputs of each stage and their md5, from dvc.lock, line by line as DVC writes it.

    A parser of YAML has to be installed, and what is missing may be just that.
    """
    recorded: dict[str, dict[str, str]] = {}
    try:
        lines = (root / LOCK).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    stage = part = path = ""
    for line in lines:
        if match := re.fullmatch(r"  (\S.*):", line):
            stage, part = _unquoted(match[1]), ""
        elif match := re.fullmatch(r"    (\w+):.*", line):
            part = match[1]
        elif part == "outs" and (match := re.fullmatch(r"    - path: (.+)", line)):
            path = _unquoted(match[1])
        elif part == "outs" and (match := re.fullmatch(r"      md5: (\S+)", line)):
            recorded.setdefault(stage, {})[path] = _unquoted(match[1])
    return recorded


def cache_folder(root: Path = Path()) -> Path:
    """Where DVC keeps files by their md5, as its configuration says: the nearest one decides."""
    dvc = dvc_folder(root)
    places = [dvc / "config.local", dvc / "config", *_configurations_of_user_and_system()]
    for place in places:
        configuration = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            configuration.read(place, encoding="utf-8")
        except (configparser.Error, ValueError):
            continue
        folder = configuration.get("cache", "dir", fallback="").strip("\"'")
        if folder:
            return place.parent / os.path.expanduser(folder) / "files/md5"
    return dvc / "cache/files/md5"


def dvc_folder(root: Path = Path()) -> Path:
    """The folder .dvc of a project: of the DVC that started this process, or above `root`."""
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"]) / ".dvc"
    folders = [root.resolve(), *root.resolve().parents]
    return next((f / ".dvc" for f in folders if (f / ".dvc").is_dir()), root / ".dvc")


def _configurations_of_user_and_system() -> list[Path]:
    user = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "dvc"
    system = Path("/etc/xdg/dvc")
    if sys.platform == "darwin":
        user, system = (
            Path(os.path.expanduser("~/Library/Application Support/dvc")),
            Path("/Library/Application Support/dvc"),
        )
    return [
        Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or user) / "config",
        Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR") or system) / "config",
    ]


def _unquoted(text: str) -> str:
    """A scalar of YAML as DVC writes it: plain, or in quotes."""
    if text.startswith("'") and text.endswith("'"):
        return text[1:-1].replace("''", "'")
    return str(json.loads(text)) if text.startswith('"') else text


def _restore(cache: Path, md5: str, root: Path, name: str, found: dict[str, str]) -> None:
    path, blob = root / name, cache / md5[:2] / md5[2:]
    try:
        if path.is_file() and _md5(path.read_bytes()) == md5:
            return
        if md5.endswith(".dir"):
            for entry in json.loads(blob.read_text(encoding="utf-8")):
                _restore(cache, entry["md5"], root, f"{name}/{entry['relpath']}", found)
            return
        content = blob.read_bytes() if blob.is_file() else _committed(root, name)
    except (OSError, ValueError):
        return  # the cache has lost it or cannot be read
    if _md5(content) != md5:
        return
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        found[name] = ""
    except OSError as error:
        found[name] = error.strerror or str(error)


def _committed(root: Path, name: str) -> bytes:
    """A file of the last commit; nothing if Git has none. Who owns the repository is no matter."""
    command = ["git", "-c", "safe.directory=*", "show", f"HEAD:./{name}"]
    return subprocess.run(command, cwd=root, capture_output=True, check=False).stdout


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
