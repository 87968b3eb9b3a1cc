"""Look at all cluster files of a folder, offline: `python -m popcomm.cluster.validate [FOLDER]`.

One line a file; exit code 0 if all are valid, 1 if one is not, 2 if there is nothing to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from popcomm.cluster import dockerfile, kuberay, ray_up
from popcomm.cluster.mistakes import ClusterMistake

HERE = Path(__file__).parent
VALID, MISTAKE, NOTHING = 0, 1, 2


def main(args: Sequence[str] | None = None) -> int:
    """Print a line for each cluster file of a folder."""
    given = list(sys.argv[1:] if args is None else args)
    if len(given) > 1 or (given and given[0].startswith("-")):
        print("usage: python -m popcomm.cluster.validate [FOLDER]", file=sys.stderr)
        return NOTHING
    folder = Path(given[0]) if given else HERE
    found = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("Dockerfile*")])
    if not found:
        print(f"{folder} holds no YAML file and no Dockerfile", file=sys.stderr)
        return NOTHING
    told = {file: mistake(file) for file in found}
    for file, sentence in told.items():
        print(f"{file.name}: {sentence or 'valid'}")
    return MISTAKE if any(told.values()) else VALID


def mistake(file: Path) -> str:
    """What is wrong with a file, in a sentence; empty if nothing is."""
    try:
        text = file.read_text(encoding="utf-8")
        if file.name.startswith("Dockerfile"):
            dockerfile.check(text)
        else:
            _check_yaml(text)
    except (ClusterMistake, OSError, UnicodeDecodeError) as error:
        return " ".join(str(error).split())
    except yaml.YAMLError as error:
        return f"no valid YAML ({' '.join(str(error).split())})"
    return ""


def _check_yaml(text: str) -> None:
    documents = [document for document in yaml.safe_load_all(text) if document is not None]
    if not documents:
        raise ClusterMistake("the file is empty")
    for document in documents:
        if not isinstance(document, dict):
            raise ClusterMistake("the file holds no mapping of keys to values")
        if "apiVersion" in document or "kind" in document:
            kuberay.check(document)
        elif "provider" in document or "cluster_name" in document:
            ray_up.check(document)
        else:
            raise ClusterMistake("the file is neither for `ray up` (cluster_name, provider) nor for Kubernetes (kind)")


if __name__ == "__main__":
    sys.exit(main())
