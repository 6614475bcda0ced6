"""What scores were made from: commands, code and params of the stages up to *evaluate*."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from cifar100.running.errors import PipelineError, reason_of
from cifar100.running.params import read_mapping
from tools.check_lock import broken_links
from tools.repository import git

STAGES = ("download", "preprocess", "train", "evaluate")  # that the scores depend on
PARAMS_FILE = "params.yaml"

Recipe = dict[str, dict[str, Any]]  # by stage: its cmd, the hashes of its code, its params


def read_stages(content: bytes, source: str) -> dict[str, Any]:
    """The stages that a dvc.lock records; `source` names the file in errors.

    Raises `PipelineError` if the content is no dvc.lock.
    """
    try:
        stages: dict[str, Any] = YAML(typ="safe").load(content.decode("utf-8"))["stages"]
        return {name: dict(stage) for name, stage in stages.items()}
    except Exception as error:  # of many types: of the parser, of a content of another form
        raise PipelineError(f"{source}: not a dvc.lock ({reason_of(error)})") from None


def params_of(stages: dict[str, Any]) -> dict[str, Any]:
    """The params that the scores depend on, from the stages of a dvc.lock."""
    return {
        key: value
        for name in STAGES
        for key, value in stages.get(name, {}).get("params", {}).get(PARAMS_FILE, {}).items()
    }


def code_of(stages: dict[str, Any]) -> dict[str, Any]:
    """By stage what the scores were computed with: its cmd, and the hashes of its code."""
    needed = {name: stages[name] for name in STAGES if name in stages}
    written = {out["path"] for stage in needed.values() for out in stage.get("outs", [])}
    return {
        name: {
            "cmd": stage["cmd"],
            "code": {
                dep["path"]: dep.get("md5")  # an address has none
                for dep in stage.get("deps", [])
                if dep["path"] not in written
            },
        }
        for name, stage in needed.items()
    }


def recorded_recipe(stages: dict[str, Any]) -> Recipe | None:
    """What the scores of a dvc.lock were made from; None if a stage has not run since a change."""
    if not {*STAGES} <= {*stages}:
        return None
    needed = {name: stages[name] for name in STAGES}
    if any(broken_links({"stages": needed})):
        return None
    return {
        name: code | {"params": needed[name].get("params", {}).get(PARAMS_FILE, {})}
        for name, code in code_of(needed).items()
    }


def present_recipe() -> Recipe:
    """What the scores would be made from now.

    Raises `PipelineError` if this is no repository of Git and DVC, or lacks one of the stages, a
    file of code, or a param.
    """
    git("rev-parse", "--git-dir")  # says why Git does not answer, if so
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    params = read_mapping(Path(PARAMS_FILE))
    recipe: Recipe = {}
    try:
        with Repo() as repo:
            stages = {stage.name: stage for stage in repo.index.stages}
            written = {out.def_path for name in STAGES for out in stages[name].outs}
            for name in STAGES:
                known = [d for d in stages[name].deps if isinstance(d, ParamsDependency)]
                files = [d for d in stages[name].deps if d not in known]
                recipe[name] = {
                    "cmd": stages[name].cmd,
                    "code": {
                        d.def_path: d.get_hash().value for d in files if d.def_path not in written
                    },
                    "params": {key: params[key] for d in known for key in d.params},
                }
    except KeyError as error:
        raise PipelineError(f"dvc.yaml or {PARAMS_FILE}: has no {error.args[0]}") from None
    except (DvcException, OSError) as error:
        raise PipelineError(f"dvc.yaml: cannot be read by DVC ({reason_of(error)})") from None
    return recipe


def without_seed(recipe: Recipe) -> Recipe:
    """The same without the seed of the training."""
    params = {key: value for key, value in recipe["train"]["params"].items() if key != "seed"}
    return recipe | {"train": recipe["train"] | {"params": params}}
