"""Hashes of files: what a runtime that writes its own SHA-256 is tested with (rule F6).

A file is `hex`, over and over up to `bytes`. Their sizes are those where an implementation goes
wrong: around the 64 bytes of a block and the 8 of the length behind the data, and beyond 2^32 bits,
where a counter of 32 bits starts anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

CHUNK = 1 << 20
COUNTING = bytes(range(251))
"""Bytes whose number has no factor in common with that of a block: no two blocks are equal."""
KNOWN = (b"", b"abc", b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
"""Messages of FIPS 180-4's examples (NIST)."""
SIZES = (1, 54, 55, 56, 57, 63, 64, 65, 111, 112, 119, 120, 127, 128, 129, 4095, 4096, 65537)
HUGE = 2**29 + 1
"""Bytes of 2^32 + 8 bits."""


def content(pattern: bytes, size: int) -> Iterator[bytes]:
    """Yield the pieces of a file."""
    if pattern and size:
        whole = pattern * (CHUNK // len(pattern) + 1)
        step = len(whole) // len(pattern) * len(pattern)
        for start in range(0, size, step):
            yield whole[: min(step, size - start)]


def sha256() -> str:
    """Return the cases as JSON, one a line."""
    files = [(message, len(message)) for message in KNOWN]
    files += [(b"a", 1_000_000), *((COUNTING, size) for size in SIZES)]
    files += [(b"\xff", 64), (b"\x80", 56), (b"\0", HUGE)]
    cases = [
        {"hex": pattern.hex(), "bytes": size, "sha256": _digest(pattern, size)}
        for pattern, size in files
    ]
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    return f"[\n{lines}\n]\n"


def _digest(pattern: bytes, size: int) -> str:
    digest = hashlib.sha256()
    for piece in content(pattern, size):
        digest.update(piece)
    return digest.hexdigest()
