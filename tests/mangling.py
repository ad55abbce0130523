"""Problem files with something wrong in them: mutations of the shipped files and of tests/faults, by number.

File number k is the same on every machine. What a mangled file means does not matter: `check` has to end with exit
code 0 or 2 and `solve` with 0, 1 or 2, without an exception, a warning, a hang or much memory.
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

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
# One mesh is read of each of these folders, and sensors and code beside the files.
_FOLDERS = ("problems", "meshes", "tests/faults")

Where = tuple[Any, Any]

_SCHEMA = json.loads((ROOT / "problems" / "schema.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Mangled:
    """A mangled file.

    Attributes:
        number: of the file.
        origin: the file that it was made from.
        changes: what was done to it.
        content: its bytes.
        beside: name -> bytes of files that it reads and that were mangled, too.
    """

    number: int
    origin: str
    changes: tuple[str, ...]
    content: bytes
    beside: dict[str, bytes]

    def write(self, folder: Path) -> Path:
        """Write it into a copy of the folders of the shipped files; returns its path."""
        path = folder / "problems" / "mangled.yaml"
        path.write_bytes(self.content)
        for name, content in self.beside.items():
            (folder / "problems" / name).write_bytes(content)
        return path


def prepare(folder: Path) -> None:
    """Copy what mangled files read into a folder."""
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
    """The files that are mangled."""
    return [*sorted((ROOT / "problems").glob("*.yaml")), *sorted((ROOT / "tests/faults").glob("*.yaml"))]


def mangled(number: int, small: bool = True) -> Mangled:
    """Mangled file `number`; with `small` its mesh, time steps and scenarios were made few before."""
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
        rough = dice.choice(_ROUGH)
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
        # Keys of every type cannot be sorted; JSON is YAML as well.
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
        tree["time"]["steps"] = min(tree["time"]["steps"], 4)
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


# Values

_NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 7, 1000, 10**6, 10**9, 10**18, 10**30, -(10**9), 10**400),
    *(0.0, -0.0, 0.5, 1.5, -1.0, 1e-30, 1e-300, 5e-324, 1e30, 1e200, 1e308, -1e308, 1e9, 1e5),
    *(float("inf"), float("-inf"), float("nan")),
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, "", " ", "auto", "null", "off", "all", "x", "1", "-", "~", "no", "0x10", "1e3", "2001-01-01"),
    *([], {}, [[]], [None], [1, 1], [1, 1, 1], [0, 0], ["x", "y"], [[1, 0], [0, 1]], {"a": 1}, {"default": 1}),
    *("left", "plate", "../x", "/dev/null", "/dev/zero", ".", "~nobody/x", "x.py:f", "minimal_surface.py:area"),
    *("minimal_surface.py:soap_film", "x" * 3000, "é", "\u0000", "\u202e", "\ud800", "a\nb", "%YAML", "&a", "*a", "!!int"),
)
_EXPRESSIONS = (
    *("x +", "(x", "x)", "x**", "x y", "2x", "x^2", "x = 1", "lambda: 1", "x if x else 1", "[x for x in y]", "x.real"),
    *("__import__('os').system('false')", "().__class__", "'x'*10**9", "9**9**9**9", "x**1e9", "(x)**(64)", "1/0"),
    *("1/x", "log(x)", "log(-1)", "sqrt(x - 0.5)", "exp(1000*x)", "exp(1e5)", "0/0*x", "1e308*10*x", "x**-64", "abs(x)"),
    *("foo(x)", "sin()", "sin(x, y)", "where(x)", "where(x < 0.5, 1, 1/0)", "clip(x, 1, 0)", "minimum(x, y)", "atan2(0, 0)"),
    *("u", "t", "z", "r", "1/r", "u**3", "a", "pi", "e", "x < y < z", "not x", "x and y", "-" * 300 + "x", "(" * 150 + "x" + ")" * 150),
    *("x" + "+x" * 900, "x#y", "x;y", "x\\", "x\ty", "x\n+1", "0x1F*x", "1j*x", "1_0*x", "True", "None", "...", "x@y", "~x"),
    *("x if", "f'{x}'", "yield x", "await x", "*x", "x := 1", "max(x)", "inf", "nan*x", "floor(x*3)", "sign(x)*1e300"),
)
_SOUND = (
    *("x", "1/x", "log(x)", "sqrt(x - 0.5)", "exp(1000*x)", "abs(x - 0.5)", "where(x < 0.5, 1, 0)", "1e200*x", "1e-200"),
    *("x*y", "r", "1/r", "t", "z", "-1", "0", "sign(x - 0.5)", "floor(3*x)", "x**-64", "minimum(x, y)", "1e308*10*x", "pi"),
    *("exp(-(x - 0.5)**2/1e-6)", "(x > 2)", "1 + 1e-16*x", "clip(x, 1, 0)", "atan2(x, y)", "1e-300*x", "x == 0.5"),
)
_NAMES = (
    *("name", "kind", "method", "mesh", "pde", "control", "objective", "time", "parameters", "scenarios", "risk", "seed"),
    *("cells", "refine", "size", "origin", "cell", "file", "steps", "end", "initial", "scheme", "weight", "target", "on"),
    *("at", "space", "bounds", "norm", "penalty", "filter", "filter_radius", "projection", "boundary", "points", "source"),
    *("conductivity", "reaction", "velocity", "components", "coefficients", "python", "capacity", "robin", "dirichlet"),
    *("neumann", "absorbing", "load", "component", "smoothing", "control", "reference", "constraints", "upper", "lower"),
    *("count", "sampling", "strategy", "levels", "batch", "validation", "rule", "level", "modes", "variance", "length"),
    *("tests", "noise", "step", "tolerance", "optimiser", "prior", "rank", "block", "lag", "refine", "cross", "rtol"),
    *("iterations", "memory", "move", "change", "shift", "power", "element", "young", "poisson_ratio", "plane", "complex"),
    *("", " ", "a.b", "0", "é", "<<", "=", "x" * 300, "all", "left", "default"),
)
# Words that can stand where another of them does.
_WORDS = (
    *(("interval", "rectangle", "box", "disk", "l_shape"), ("triangle", "quadrilateral"), ("tetrahedron", "hexahedron")),
    ("poisson", "semilinear", "advection_diffusion", "helmholtz", "elasticity", "stokes", "navier_stokes"),
    *(("heat", "burgers", "allen_cahn"), ("density", "conductivity", "log_conductivity")),
    ("source", "neumann", "robin", "dirichlet", "initial", "conductivity", "log_conductivity", "density", "parameter"),
    ("tracking", "compliance", "linear_state", "regularisation", "linear_control"),
    *(("volume", "state"), ("dense", "block", "low_rank", "factored", "auto"), ("l2", "h1", "l1", "tv")),
    ("nhgd", "adjoint", "truncated_cg", "neumann", "broyden", "stocbio", "amigo", "soba", "saba", "nbo_gd", "nbo_cg"),
    *(("nhgd", "sample_average", "robbins_monro", "nsbo_sgd"), ("lbfgs", "newton_cg", "gradient", "adam", "mma", "oc")),
    *(("P0", "P1", "P2", "time", "constant"), ("left", "right", "top", "bottom", "front", "all", "plate", "pad")),
    *(("growing", "all", "saga", "streaming"), ("monte_carlo", "quasi", "quadrature"), ("final", "all")),
    *(("implicit_euler", "crank_nicolson"), ("helmholtz", "cone", "sensitivity"), ("strain", "stress")),
)
_SECTIONS: tuple[dict[str, Any], ...] = tuple(
    each["properties"] for each in _SCHEMA["$defs"].values() if "properties" in each
) + (_SCHEMA["properties"],)


def _keys_of(here: dict[Any, Any]) -> dict[str, Any]:
    """The keys of the section that a mapping is most likely, with their schemas."""
    return max(_SECTIONS, key=lambda each: (len(each.keys() & here.keys()) / (len(here) + 1) - 0.001 * len(each)))


def _allowed(schema: Any, dice: random.Random) -> Any:
    """A value that a schema allows, more or less."""
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
    pool = dice.choice((_NUMBERS, _ODD, _EXPRESSIONS))
    return copy.deepcopy(dice.choice(pool))


# Changes of trees


def _other_value(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        place[0][place[1]] = _value(dice)


def _other_number(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, (int, float))) is not None:
        here, key = place
        here[key] = dice.choice((*_NUMBERS, -here[key], here[key] * 10**6, here[key] + 1, [here[key]]))


def _other_expression(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, (str, int, float))) is not None:
        here, key = place
        text = dice.choice(_EXPRESSIONS)
        here[key] = dice.choice((text, f"({here[key]})*({text})", f"{here[key]} {text}"))


def _near_number(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice, (int, float))) is not None:
        here, key = place
        factors = (2, 0.1, 10, -1, 0, 100, 1e-4) if isinstance(here[key], float) else (2, 3, -1, 0, 10)
        here[key] *= dice.choice(factors)


def _sound_expression(tree: Any, dice: random.Random) -> None:
    """An expression without a mistake of its own in place of another one."""
    found = [
        (here, key)
        for here, key in _places(tree)
        if key not in ("kind", "name", "on", "file", "at", "norm", "space", "element", "method", "cell", "python")
        and isinstance(here[key], str | int | float)
    ]
    if found:
        here, key = dice.choice(found)
        text = dice.choice(_SOUND)
        whole = f"({here[key]})*({text})"
        here[key] = dice.choice((text, text, whole, [text], [text, here[key]], [here[key]] * 3, {"default": text}))


def _other_word(tree: Any, dice: random.Random) -> None:
    found = [(here, key, group) for here, key in _places(tree) for group in _WORDS if isinstance(here[key], str) and here[key] in group]
    if found:
        here, key, group = dice.choice(found)
        here[key] = dice.choice(group)


def _no_key(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        del place[0][place[1]]


def _other_key(tree: Any, dice: random.Random) -> None:
    here = dice.choice([each for each in _mappings(tree) if each] or [{"": 0}])
    key = dice.choice(list(here))
    new = dice.choice((str(key)[:-1], str(key) + "s", str(key).upper(), *dice.sample(_NAMES, 3), 7, None, True, 1.5))
    here[new] = here.pop(key)


def _more_keys(tree: Any, dice: random.Random) -> None:
    here = tree if dice.random() < 0.4 else dice.choice(_mappings(tree))
    for _ in range(dice.choice((1, 1, 2, 3))):
        known = _keys_of(here)
        name = dice.choice(list(known)) if dice.random() < 0.85 else dice.choice(_NAMES)
        here[name] = _allowed(known.get(name, {}), dice) if dice.random() < 0.6 else _value(dice)


def _options(tree: Any, dice: random.Random) -> None:
    """Options of the methods, two or three of them."""
    for _ in range(dice.choice((1, 2, 3))):
        name = dice.choice(("inner", "curvature", "hypergradient", "adjoints", "outer", "scenarios", "output", "devices"))
        known = _SCHEMA["$defs"][f"{name.capitalize()}Spec"]["properties"]
        here = tree.setdefault(name, {})
        if isinstance(here, dict):
            key = dice.choice(list(known))
            here[key] = _allowed(known[key], dice) if dice.random() < 0.8 else dice.choice(_NUMBERS)


def _moved(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        value = copy.deepcopy(place[0][place[1]])
        key = place[1] if isinstance(place[0], dict) else dice.choice(_NAMES)
        if dice.random() < 0.5:
            del place[0][place[1]]
        dice.choice(_mappings(tree))[key] = value


def _nested(tree: Any, dice: random.Random) -> None:
    if (place := _place(tree, dice)) is not None:
        value = place[0][place[1]]
        for _ in range(dice.choice((1, 1, 1, 2, 60))):
            value = [value] if dice.random() < 0.5 else {dice.choice(_NAMES): value}
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


# What mostly passes the schema, and what mostly does not.
_MILD: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_near_number, _near_number, _sound_expression, _sound_expression, _other_word, _other_word, _more_keys),
    *(_options, _options, _spliced, _other_number),
)
_WILD: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_other_value, _other_value, _other_number, _other_expression, _no_key, _other_key, _more_keys, _moved, _nested),
    *(_repeated, _listed, _spliced),
)


# Changes of texts


def _truncated(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _flipped(content: bytes, dice: random.Random) -> bytes:
    some = bytearray(content)
    for _ in range(dice.choice((1, 1, 3, 10))):
        if some:
            some[dice.randrange(len(some))] ^= 1 << dice.randrange(8)
    return bytes(some)


def _inserted(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    odd = (
        *(b"\t", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"!!int ''", b"!!float x", b"!!python/name:os.system ", b"&a "),
        *(b"*a", b"<<: ", b"---\n", b"...\n", b"%YAML 9.9\n", b"|\n", b">\n", b"'", b'"', b"[" * 50, b"{" * 50, b"? ", b"#"),
    )
    return content[:at] + dice.choice(odd) + content[at:]


def _lines(content: bytes, dice: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        k = dice.randrange(len(lines))
        kind = dice.randrange(4)
        line = lines.pop(k)
        if kind == 0:
            lines[k:k] = [line, line]
        elif kind == 1:
            lines.insert(k, b"  " + line)
        elif kind == 2:
            lines.insert(dice.randrange(len(lines) + 1), line)
    return b"".join(lines)


def _encoded(content: bytes, dice: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return dice.choice(
        (
            *(text.encode("utf-16"), text.encode("utf-16-le"), text.encode("utf-32"), b"\xef\xbb\xbf" + content),
            *(content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r"), content.replace(b"  ", b"\t")),
            *(b"%YAML 9.9\n---\n" + content, b"%YAML 1.1\n---\n" + content, content + b"---\n" + content),
        )
    )


_ROUGH = (_truncated, _flipped, _inserted, _lines, _encoded)


def _mangle_beside(tree: Any, dice: random.Random, beside: dict[str, bytes]) -> list[str]:
    """Mangle a mesh or a table of sensors that a file reads; a copy, whose name replaces that of the original."""
    found = [
        (here, key)
        for here, key in _places(tree)
        if isinstance(here, dict) and key in ("file", "at") and isinstance(here[key], str)
    ]
    for here, key in found:
        paths = [path for folder in _FOLDERS if (path := ROOT / folder / here[key]).is_file()]
        paths += [path for path in (ROOT / here[key],) if path.is_file()]
        if paths:
            change = dice.choice((*_ROUGH, _numbers))
            name = f"mangled{paths[0].suffix}"
            beside[name] = change(paths[0].read_bytes(), dice)
            here[key] = name
            return [f"{change.__name__.strip('_')} beside"]
    return []


def _numbers(content: bytes, dice: random.Random) -> bytes:
    """Some numbers of a table replaced by odd ones."""
    words = content.split(b" ")
    for _ in range(dice.choice((1, 2, 5))):
        words[dice.randrange(len(words))] = str(dice.choice((*_NUMBERS[:-4], "nan", "inf", "x", "", -1, 10**12))).encode()
    return b" ".join(words)
