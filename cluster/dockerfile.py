"""A Dockerfile, looked at without Docker: pinned, for both devices, without root and without secrets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from popcomm.cluster.mistakes import UNPINNED, ClusterMistake

from popcomm.errors import nearest

INSTRUCTIONS = """
    ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL USER VOLUME WORKDIR
"""
HERE = re.compile(r"<<-?[\"']?(\w+)")
SECRET = re.compile(r"(TOKEN|PASSWORD|SECRET)\w*=\S")


def check(text: str) -> None:
    """Raises ClusterMistake, the first mistake."""
    found, known, stages = list(instructions(text)), INSTRUCTIONS.split(), set[str]()
    for line, word, rest in found:
        if word not in known:
            raise ClusterMistake(f"line {line}: {word} does not exist; {nearest(word, known)}")
        if word == "FROM":
            stages.add(_stage(line, rest, stages))
        if word in ("ARG", "ENV") and SECRET.search(rest):
            raise ClusterMistake(f"line {line}: {word} holds a secret, which anyone who has the image can read")
        if word == "EXPOSE":
            raise ClusterMistake(f"line {line}: EXPOSE {rest}: no port of Ray is for others")
    if not found or "FROM" not in (word for _, word, _ in found[:2]):
        raise ClusterMistake("there is no FROM")
    if not any(word == "ARG" and rest.split("=")[0] == "DEVICE" for _, word, rest in found):
        raise ClusterMistake("ARG DEVICE is missing, which tells CPU from CUDA")
    users = [rest for _, word, rest in found if word == "USER"]
    if not users or users[-1].split(":")[0] in ("", "root", "0"):
        raise ClusterMistake("the last USER must have a name, and must not be root")


def _stage(line: int, rest: str, stages: Collection[str]) -> str:
    """The name that FROM gives its stage, or the image; an earlier stage needs no version, others do."""
    image, *more = [word for word in rest.split() if not word.startswith("--")] or [""]
    if not image:
        raise ClusterMistake(f"line {line}: FROM names no image")
    if image not in stages and UNPINNED.search(image):
        raise ClusterMistake(f"line {line}: FROM {image} must have a version, or a digest")
    return more[1] if len(more) > 1 else image


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, INSTRUCTION, rest) of a Dockerfile; lines that end in a backslash are joined, and those of a here-document
    (`RUN <<EOF`) are none."""
    begun, parts, ends = 0, list[str](), list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if ends:
            ends = ends[1:] if line.strip() == ends[0] else ends
            continue
        if line.lstrip().startswith("#") or (not line.strip() and not parts):
            continue
        begun = begun or number
        parts.append(line.rstrip().removesuffix("\\"))
        if not line.rstrip().endswith("\\"):
            word, _, rest = " ".join(parts).strip().partition(" ")
            ends = HERE.findall(rest) if word.upper() in ("RUN", "COPY", "ADD") else []
            yield begun, word.upper(), rest.strip()
            begun, parts = 0, []
