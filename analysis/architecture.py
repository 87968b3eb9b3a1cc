"""The rooms of popcomm and who uses whom, from the imports: python -m popcomm.analysis.architecture [FILE.png].

Made again whenever rooms change; it reads the files of popcomm and runs none of them.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

import popcomm
from popcomm.language.drawing import BLUE, INK, MUTED, card, png

# From the ground up. A room may use those on the floors below it, and none beside it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("checks", "identity", "loading", "manifest", "run_lock", "sources"),
    ("references",),
    ("schedules",),
    ("theory", "language"),
    ("channels",),
    ("envs",),
    ("agents", "evolution"),
    ("rollout",),
    ("rllib",),
    ("cli",),
)
GROUND = FLOORS[0] + FLOORS[1] + FLOORS[2] + FLOORS[3]  # single files, drawn as one
PACKAGE = Path(popcomm.__file__).parent
BESIDE = 6.0  # between arrows to one point, in a hundredth of the picture's width
LETTERS = 1.6  # of a box's text, in a hundredth of the picture's width
Box = tuple[float, float, float, float]  # left, bottom, width (hundredths of the picture) and height (floors)


class Import(NamedTuple):
    """One module that another one names."""

    source: str
    target: str
    when: str  # "loaded", "late": inside a function, "types": for the type checker alone, "program": where it is run


class Room(NamedTuple):
    """What a box says."""

    name: str
    told: str
    files: int
    lines: int


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """{dotted name: file} of a package's modules; a package is named without its __init__."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(files: dict[str, Path]) -> list[Import]:
    """All imports of one another's, those inside functions included; of those outside popcomm none."""
    return [found for name, file in files.items() for found in _imports(name, file, files)]


def room_of(module: str) -> str:
    """The folder or file of popcomm that a module is in; "" for popcomm itself, which is the door to all."""
    return module.split(".")[1] if "." in module else ""


def upwards(found: Iterable[Import]) -> list[Import]:
    """Those that go to a room that is not on a floor below."""
    floor = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for one in found:
        source, target = room_of(one.source), room_of(one.target)
        if source and target and source != target and floor.get(target, len(FLOORS)) >= floor.get(source, -1):
            wrong.append(one)
    return wrong


def circles(found: Iterable[Import]) -> list[str]:
    """The modules that need one another, directly or through others, when they are loaded or run; sorted."""
    needs: dict[str, set[str]] = {}
    for one in found:
        if one.when in ("loaded", "late") and one.source != one.target:
            needs.setdefault(one.source, set()).add(one.target)
    return sorted(module for module in needs if module in _reached(module, needs))


def _imports(name: str, file: Path, files: dict[str, Path]) -> Iterator[Import]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node, when in _statements(ast.parse(file.read_text(encoding="utf-8")), "loaded"):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            targets = [module if (module := f"{origin}.{alias.name}") in files else origin for alias in node.names]
        own = name.split(".")[0]
        yield from (Import(name, target, when) for target in dict.fromkeys(targets) if target.split(".")[0] == own)


def _statements(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(child, "late" if when == "loaded" else when)
        elif isinstance(child, ast.If) and when == "loaded":
            asked = {part.id for part in ast.walk(child.test) if isinstance(part, ast.Name)}
            inner = "types" if "TYPE_CHECKING" in asked else "program" if "__name__" in asked else when
            yield from _statements(child, inner)
        else:
            yield from _statements(child, when)


def _reached(start: str, needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    open_ = [start]
    while open_:
        new = needs.get(open_.pop(), set()) - found
        found |= new
        open_ += new
    return found


# ---- the picture ----


def rooms(files: dict[str, Path]) -> dict[str, Room]:
    """What there is to say of every room that exists, the ground floors as one."""
    told = {}
    for name in ["ground", *(room for floor in FLOORS for room in floor if room not in GROUND)]:
        inside = [file for module, file in files.items() if _drawn(module) == name]
        if inside:
            lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in inside)
            told[name] = Room(name, _sentence(name, files), len(inside), lines)
    return told


def uses(found: Iterable[Import]) -> Counter[tuple[str, str]]:
    """How many imports lead from one drawn room to another."""
    known = {room for floor in FLOORS for room in floor}
    inside = (one for one in found if {room_of(one.source), room_of(one.target)} <= known)
    pairs = ((_drawn(one.source), _drawn(one.target)) for one in inside)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def direct(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs that no way through a third room replaces."""
    needs: dict[str, set[str]] = {}
    for source, target in pairs:
        needs.setdefault(source, set()).add(target)
    longer = {source: set().union(*(_reached(middle, needs) for middle in near)) for source, near in needs.items()}
    return sorted((source, target) for source, near in needs.items() for target in near - longer[source])


def draw(files: dict[str, Path] | None = None) -> bytes:
    """The house as a PNG."""
    files = modules() if files is None else files
    told, counts = rooms(files), uses(imports(files))
    floors = [[room for room in floor if room in told] for floor in (("ground",), *FLOORS)]
    floors = [floor for floor in floors if floor]
    figure = card(10.5, 1.2 * len(floors) + 0.6, "The rooms of popcomm, and what each stands on")
    axes = figure.add_subplot()
    axes.set(xlim=(0, 100), ylim=(-0.1, len(floors) - 0.2))
    axes.axis("off")
    boxes = {}
    for level, floor in enumerate(floors):
        for place, name in enumerate(floor):
            left, width = (1, 98) if name in ("ground", "cli") else ((1, 58), (63, 36))[place]
            boxes[name] = (left, level + 0.12, width, 0.6)
            _box(axes, boxes[name], told[name])
    ends: Counter[tuple[float, float]] = Counter()
    for source, target in direct(counts):
        # Arrows that would end at one point stand side by side.
        end = _ends(boxes[source], boxes[target])[1]
        _arrow(axes, boxes[source], boxes[target], counts[source, target], BESIDE * ends[end])
        ends[end] += 1
    axes.text(
        1, -0.05, "An arrow: so many imports. What a room uses through another one as well has no arrow of its own.",
        fontsize=8, color=MUTED, va="center",
    )  # fmt: skip
    return png(figure)


def _box(axes: Axes, box: Box, room: Room) -> None:
    left, bottom, width, height = box
    axes.add_patch(Rectangle((left, bottom), width, height, facecolor="white", edgecolor=MUTED, linewidth=1.0))
    middle, size = bottom + 0.75 * height, f"{room.files} file{'s' if room.files > 1 else ''}, {room.lines:,} lines"
    axes.text(left + 1.2, middle, room.name, fontsize=11, fontweight="bold", color=BLUE, va="center")
    axes.text(left + width - 1.2, middle, size, fontsize=8, color=MUTED, va="center", ha="right")
    told = "\n".join(textwrap.wrap(room.told, round(LETTERS * width), max_lines=2, placeholder=" ..."))
    axes.text(left + 1.2, bottom + 0.35 * height, told, fontsize=8, color=INK, va="center", linespacing=1.25)


def _ends(above: Box, below: Box) -> tuple[tuple[float, float], tuple[float, float], bool]:
    """Where an arrow starts and ends, and whether it goes straight down."""
    (left, bottom, width, height), (left_below, bottom_below, width_below, height_below) = above, below
    low, high = max(left, left_below), min(left + width, left_below + width_below)
    top = bottom_below + height_below
    if low < high:  # straight down where one stands above the other
        return ((low + high) / 2, bottom), ((low + high) / 2, top), True
    # Out at the side, then down, behind whatever stands between.
    return (left + width, bottom + height / 2), (left_below + 8, top), False


def _arrow(axes: Axes, above: Box, below: Box, count: int, beside: float) -> None:
    start, end, straight = _ends(above, below)
    end = (end[0] + beside, end[1])
    start = (start[0] + beside, start[1]) if straight else start
    bend = "arc3" if straight else "angle,angleA=0,angleB=90,rad=6"
    arrow = FancyArrowPatch(
        start, end, arrowstyle="-|>", connectionstyle=bend, shrinkA=0, shrinkB=1, mutation_scale=11, color=INK,
        linewidth=1.1, zorder=0.5,
    )  # fmt: skip
    axes.add_patch(arrow)
    axes.text(end[0] + 0.8, end[1] + 0.22, str(count), fontsize=8, color=MUTED, va="center")


def _drawn(module: str) -> str:
    room = room_of(module)
    return "ground" if room in GROUND else room


def _sentence(name: str, files: dict[str, Path]) -> str:
    if name == "ground":
        return f"{', '.join(room for room in GROUND if f'popcomm.{room}' in files)}: one file each"
    text = ast.get_docstring(ast.parse(files[f"popcomm.{name}"].read_text(encoding="utf-8"))) or ""
    inner = [module.split(".")[2] for module, file in files.items() if _is_folder_in(name, module, file)]
    return " ".join([*text.split("\n\n")[0].split(), *([f"In it: {', '.join(inner)}."] if inner else [])])


def _is_folder_in(room: str, module: str, file: Path) -> bool:
    return file.name == "__init__.py" and module.count(".") == 2 and room_of(module) == room


def main() -> None:
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/architecture.png")
    file.write_bytes(draw())
    print(f"{file}: {sum(uses(imports(modules())).values())} imports between rooms")


if __name__ == "__main__":
    main()
