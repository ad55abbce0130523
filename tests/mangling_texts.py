"""Changes of the text of a file: bytes, lines, encodings, numbers of a table."""

from __future__ import annotations

import random

from mangling_values import NUMBERS


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
        *(
            b"\t",
            b"\x00",
            b"\xff",
            b"\xef\xbb\xbf",
            b"\r\n",
            b"!!int ''",
            b"!!float x",
            b"!!python/name:os.system ",
            b"&a ",
        ),
        *(
            b"*a",
            b"<<: ",
            b"---\n",
            b"...\n",
            b"%YAML 9.9\n",
            b"|\n",
            b">\n",
            b"'",
            b'"',
            b"[" * 50,
            b"{" * 50,
            b"? ",
            b"#",
        ),
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


def _numbers(content: bytes, dice: random.Random) -> bytes:
    """Replaces some numbers of a table with unusual ones."""
    words = content.split(b" ")
    for _ in range(dice.choice((1, 2, 5))):
        words[dice.randrange(len(words))] = str(
            dice.choice((*NUMBERS[:-4], "nan", "inf", "x", "", -1, 10**12))
        ).encode()
    return b" ".join(words)


ROUGH = (_truncated, _flipped, _inserted, _lines, _encoded)
OF_TABLES = (*ROUGH, _numbers)
