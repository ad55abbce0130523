"""Problem files with something wrong in them: mutations of the shipped files and of tests/faults, by number.

File number k is the same on every machine. Whatever a mangled file means, `check` has to end with exit code 0 or 2 and
`solve` with 0, 1 or 2, without an exception, a warning, a hang or much memory.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangling_texts import OF_TABLES, ROUGH
from mangling_values import EXPRESSIONS, NAMES, NUMBERS, ODD, SOUND, WORDS
from ruamel.yaml import YAML

from benchmarks.shipped import PROBLEMS

ROOT = Path(__file__).parents[1]
# One mesh is read of each of these folders, and sensors and code beside the files.
_FOLDERS = ("problems", "meshes", "tests/faults")

Where = tuple[Any, Any]

_SCHEMA = json.loads((ROOT / "problems" / "schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Mangled:
    """A mangled file.

    Attributes:
        number: number of the file.
        origin: the original file.
        changes: the mutations.
        content: the bytes of the file.
        beside: name -> bytes of other mangled files that it reads.
    """

    number: int
    origin: str
    changes: tuple[str, ...]
    content: bytes
    beside: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Writes the file into a copy of the folders of the shipped files, and returns its path."""
        path = folder / "problems" / "mangled.yaml"
        path.write_bytes(self.content)
        for name, content in self.beside.items():
            (folder / "problems" / name).write_bytes(content)
        return path


def prepare(folder: Path) -> None:
    """Copies the files that mangled files read into a folder."""
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        if name != "problems":
            for file in (ROOT / name).iterdir():
                if file.suffix not in (".yaml", ".geo"):
                    shutil.copy(file, folder / "problems" / file.name)


def shrunk(path: Path) -> dict[str, Any]:
    """The content of a problem file with few cells, time steps and scenarios."""
    tree = _read(path)
    _shrink(tree)
    return tree


def origins() -> list[Path]:
    """The original files."""
    return [*PROBLEMS, *sorted((ROOT / "tests/faults").glob("*.yaml"))]


def mangled(number: int, small: bool = True) -> Mangled:
    """Mangled file `number`; with `small` the original has few cells, time steps and scenarios."""
    dice = random.Random(number)
    origin = dice.choice(origins())
    tree = shrunk(origin) if small else _read(origin)
    beside: dict[str, bytes] = {}
    changes = []
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3))):
        change = dice.choice(_MILD if dice.random() < 0.75 else _WILD)
        change(tree, dice)
        changes.append(change.__name__.strip("_"))
    content = _written(tree).encode("utf-8", "surrogatepass")
    if dice.random() < 0.12:
        rough = dice.choice(ROUGH)
        content = rough(content, dice)
        changes.append(rough.__name__.strip("_"))
    elif dice.random() < 0.2:
        changes += _mangle_beside(tree, dice, beside)
    return Mangled(number, origin.name, tuple(changes), content, beside)


def _read(path: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def _written(tree: Any) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.allow_unicode = True
    stream = io.StringIO()
    try:
        yaml.dump(tree, stream)
    except Exception:
        # JSON is YAML too, and can write keys of all types without sorting them.
        return json.dumps(tree, default=str)
    return stream.getvalue()


def _shrink(tree: dict[str, Any]) -> None:
    mesh = tree["mesh"]
    if "cells" in mesh:
        most = 4 if mesh["kind"] == "box" else 8
        many = mesh["cells"] if isinstance(mesh["cells"], list) else [mesh["cells"]]
        mesh["cells"] = [min(each, most) for each in many] if isinstance(mesh["cells"], list) else min(many[0], most)
    elif mesh.get("kind") in ("rectangle", "box", "interval"):
        mesh["cells"] = 4
    if mesh.get("kind") in ("disk", "l_shape") or "refine" in mesh:
        mesh["refine"] = min(mesh.get("refine", 4), 1 if "file" in mesh else 2)
    if "time" in tree:
        steps = tree["time"]["steps"] = min(tree["time"]["steps"], 4)
        for each in tree["control"] if isinstance(tree["control"], list) else [tree["control"]]:
            if "windows" in each:
                each["windows"] = min(each["windows"], steps)
    if "parameters" in tree:
        scenarios = tree.setdefault("scenarios", {})
        if scenarios.get("sampling") != "quadrature":
            scenarios["count"] = 8
        scenarios["validation"] = 4
        for each in tree["parameters"].values():
            if "modes" in each.get("field", {}):
                each["field"]["modes"] = min(each["field"]["modes"], 4)


# Places in a tree


def _places(tree: Any) -> list[Where]:
    """(container, key) of every value below a tree."""
    found: list[Where] = []
    stack = [tree]
    while stack:
        here = stack.pop()
        items = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        for key, value in items:
            found.append((here, key))
            stack.append(value)
    return found


def _place(tree: Any, dice: random.Random, kind: type | tuple[type, ...] = object) -> Where | None:
    found = [(here, key) for here, key in _places(tree) if isinstance(here[key], kind)]
    return dice.choice(found) if found else None


def _mappings(tree: Any) -> list[dict[Any, Any]]:
    return [tree, *(here[key] for here, key in _places(tree) if isinstance(here[key], dict))]


_SECTIONS: list[dict[str, Any]] = [each["properties"] for each in _SCHEMA["$defs"].values() if "properties" in each]


def _keys_of(here: dict[Any, Any]) -> dict[str, Any]:
    """The keys of the section that a mapping most likely is, with their schemas."""
    return max(_SECTIONS, key=lambda each: len(each.keys() & here.keys()) / (len(here) + 1) - 0.001 * len(each))


def _allowed(schema: Any, dice: random.Random) -> Any:
    """A value that a schema probably allows."""
    for each in dice.sample(choices, len(choices)) if (choices := schema.get("anyOf", ())) else ():
        return _allowed(each, dice)
    if "enum" in schema:
        return dice.choice(schema["enum"])
    match schema.get("type"):
        case "boolean":
            return dice.random() < 0.5
        case "integer":
            return dice.choice((0, 1, 2, 3, 5, 10))
        case "number":
            return dice.choice((0.1, 0.5, 1, 2.5, 1e-3, 30.0, 1e4))
        case "string":
            return dice.choice(("x", "all", "left", "state", "source", "1 + x"))
        case "array":
            return [_allowed(schema.get("items") or {}, dice) for _ in range(dice.choice((1, 2, 2, 3)))]
        case "object":
            return {dice.choice(("left", "all", "default", "plate")): 1}
    return dice.choice((1, 0.5, "1 + x", "x*y", [0, 0], [1, 0], None))


def _value(dice: random.Random) -> Any:
    pool = dice.choice((NUMBERS, ODD, EXPRESSIONS))
    return copy.deepcopy(dice.choice(pool))


# Changes of trees


def _other_value(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        place[0][place[1]] = _value(dice)


def _other_number(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, (int, float))) is not None:
        here, key = place
        here[key] = dice.choice((*NUMBERS, -here[key], here[key] * 10**6, here[key] + 1, [here[key]]))


def _other_expression(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, (str, int, float))) is not None:
        here, key = place
        text = dice.choice(EXPRESSIONS)
        here[key] = dice.choice((text, f"({here[key]})*({text})", f"{here[key]} {text}"))


def _near_number(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, (int, float))) is not None:
        here, key = place
        factors = (2, 0.1, 10, -1, 0, 100, 1e-4) if isinstance(here[key], float) else (2, 3, -1, 0, 10)
        here[key] *= dice.choice(factors)


def _sound_expression(tree: Any, dice: random.Random) -> None:
    """Replaces an expression with one that has no mistake."""
    found = [
        (here, key)
        for here, key in _places(tree)
        if key not in ("kind", "name", "on", "file", "at", "norm", "space", "element", "method", "cell", "python")
        and isinstance(here[key], str | int | float)
    ]
    if found:
        here, key = dice.choice(found)
        text = dice.choice(SOUND)
        whole = f"({here[key]})*({text})"
        here[key] = dice.choice((text, text, whole, [text], [text, here[key]], [here[key]] * 3, {"default": text}))


def _other_word(tree: Any, dice: random.Random) -> None:
    found = [
        (here, key, group)
        for here, key in _places(tree)
        for group in WORDS
        if isinstance(here[key], str) and here[key] in group
    ]
    if found:
        here, key, group = dice.choice(found)
        here[key] = dice.choice(group)


def _no_key(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        del place[0][place[1]]


def _other_key(tree: Any, dice: random.Random) -> None:
    here = dice.choice([each for each in _mappings(tree) if each] or [{"": 0}])
    key = dice.choice(list(here))
    new = dice.choice((str(key)[:-1], str(key) + "s", str(key).upper(), *dice.sample(NAMES, 3), 7, None, True, 1.5))
    here[new] = here.pop(key)


def _more_keys(tree: Any, dice: random.Random) -> None:
    here = tree if dice.random() < 0.4 else dice.choice(_mappings(tree))
    for _ in range(dice.choice((1, 1, 2, 3))):
        known = _keys_of(here)
        name = dice.choice(list(known)) if dice.random() < 0.85 else dice.choice(NAMES)
        here[name] = _allowed(known.get(name, {}), dice) if dice.random() < 0.6 else _value(dice)


def _options(tree: Any, dice: random.Random) -> None:
    """Adds two or three options of methods."""
    for _ in range(dice.choice((1, 2, 3))):
        name = dice.choice(
            ("inner", "curvature", "hypergradient", "adjoints", "outer", "scenarios", "output", "devices")
        )
        known = _SCHEMA["$defs"][f"{name.capitalize()}Spec"]["properties"]
        here = tree.setdefault(name, {})
        if isinstance(here, dict):
            key = dice.choice(list(known))
            here[key] = _allowed(known[key], dice) if dice.random() < 0.8 else dice.choice(NUMBERS)


def _moved(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        value = copy.deepcopy(place[0][place[1]])
        key = place[1] if isinstance(place[0], dict) else dice.choice(NAMES)
        if dice.random() < 0.5:
            del place[0][place[1]]
        dice.choice(_mappings(tree))[key] = value


def _nested(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        value = place[0][place[1]]
        for _ in range(dice.choice((1, 1, 1, 2, 60))):
            value = [value] if dice.random() < 0.5 else {dice.choice(NAMES): value}
        place[0][place[1]] = value


def _repeated(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, list)) is not None:
        here, key = place
        if here[key]:
            here[key] = [copy.deepcopy(dice.choice(here[key])) for _ in range(dice.choice((1, 2, 3, 4, 30)))]


def _listed(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        place[0][place[1]] = [copy.deepcopy(place[0][place[1]]) for _ in range(dice.choice((1, 2, 3)))]


def _spliced(tree: Any, dice: random.Random) -> None:
    other = shrunk(dice.choice(origins()))
    if dice.random() < 0.6:
        for key in dice.sample(sorted(other), min(len(other), dice.choice((1, 1, 2, 4)))):
            tree[key] = other[key]
        return
    source, place = _place(other, dice), _place(tree, dice)
    if source is not None and place is not None:
        place[0][place[1]] = source[0][source[1]]


# Changes that mostly pass the schema, and changes that mostly do not.
_MILD: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_near_number, _near_number, _sound_expression, _sound_expression, _other_word, _other_word, _more_keys),
    *(_options, _options, _spliced, _other_number),
)
_WILD: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_other_value, _other_value, _other_number, _other_expression, _no_key, _other_key, _more_keys, _moved, _nested),
    *(_repeated, _listed, _spliced),
)


def _mangle_beside(tree: Any, dice: random.Random, beside: dict[str, bytes]) -> list[str]:
    """Mangles a copy of a mesh or of a table of sensors that a file reads, and puts its name into the file."""
    found = [
        (here, key)
        for here, key in _places(tree)
        if isinstance(here, dict) and key in ("file", "at") and isinstance(here[key], str)
    ]
    for here, key in found:
        paths = [path for folder in _FOLDERS if (path := ROOT / folder / here[key]).is_file()]
        paths += [path for path in (ROOT / here[key],) if path.is_file()]
        if paths:
            change = dice.choice(OF_TABLES)
            name = f"mangled{paths[0].suffix}"
            beside[name] = change(paths[0].read_bytes(), dice)
            here[key] = name
            return [f"{change.__name__.strip('_')} beside"]
    return []
