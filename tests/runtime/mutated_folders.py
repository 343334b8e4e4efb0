"""Changes a bundle's folder at random, and looks at what a reader says.

python tests/runtime/mutated_folders.py 5000 [FIRST]     many of them, with a count by rule
"""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from folder_steps import NAME, make_base

from mvsdk.bundle import Bundle
from mvsdk.errors import BundleError

NAMES = (
    *("model.onnx", "MODEL.onnx", "weights.bin", "manifest.json", "x", "sub", "npu", "Data"),
    *(".DS_Store", "._model.onnx", ".cache", ".abc", "Thumbs.db", "b\u00fccher", "a b", "a\nb"),
    *("\u202e", "x" * 200, ".x" * 100, "Manifest.json", "~", "CON", "..."),
)
CONTENT = (b"", b"x", b".DS_Store", b"{}", bytes(range(256)), b'{"path": "\\u002eDS_Store"}')
FORMAT_RULES = ("D", "F", "G", "P", "S", "R", "T")


def mutate(generator: random.Random, root: Path) -> None:
    """Change one to six things in the bundle of a folder, or beside it."""
    for _ in range(generator.randint(1, 6)):
        action = generator.choice(ACTIONS)
        try:
            action(generator, root)
        except OSError:  # such as a name that is taken, or below a link that leads nowhere
            continue


def try_all(path: Path, packs: Mapping[str, Path]) -> collections.Counter[str]:
    """Open a bundle, load every model, and check every hash.

    Returns:
        How often each rule was broken; "" counts what was well.

    Raises:
        AssertionError: If an error names no rule, or takes more than a line.
    """
    counts: collections.Counter[str] = collections.Counter()
    try:
        bundle = Bundle.open(path, packs=packs)
    except BundleError as exc:
        counts[_rule(exc)] += 1
        return counts
    counts[""] += 1
    for component in bundle.manifest.components.values():
        for variant in component.variants:
            try:
                bundle.model(variant)
                counts[""] += 1
            except BundleError as exc:
                counts[_rule(exc)] += 1
    try:
        bundle.verify()
        counts[""] += 1
    except BundleError as exc:
        counts[_rule(exc)] += 1
    return counts


def _rule(exc: BundleError) -> str:
    message, rule = str(exc), exc.rule
    assert rule is not None, message
    assert rule[0] in FORMAT_RULES, message
    assert rule[1:].isdigit(), message
    assert message.endswith(f"[{rule}]"), message
    assert len(message.splitlines()) == 1, message
    return rule


def _any(generator: random.Random, root: Path) -> Path:
    """Return a file or folder of the bundle, or the bundle itself."""
    return generator.choice([root / NAME, *sorted((root / NAME).rglob("*"))])


def _new(generator: random.Random, root: Path) -> Path:
    place = _any(generator, root)
    folder = place if place.is_dir() else place.parent
    return folder / generator.choice(NAMES)


def _remove(generator: random.Random, root: Path) -> None:
    path = _any(generator, root)
    if path.is_dir() and not path.is_symlink():
        if path != root / NAME or generator.random() < 0.1:
            shutil.rmtree(path)
    else:
        path.unlink()


def _make(generator: random.Random, root: Path) -> None:
    path = _new(generator, root)
    if not path.exists():  # writing into a pipe waits for its reader
        path.write_bytes(generator.choice(CONTENT))


def _mkdir(generator: random.Random, root: Path) -> None:
    _new(generator, root).mkdir()


def _fifo(generator: random.Random, root: Path) -> None:
    os.mkfifo(_new(generator, root))


def _link(generator: random.Random, root: Path) -> None:
    to = generator.choice(["/", ".", "..", "/dev/null", "nothing", str(_any(generator, root))])
    path = _new(generator, root)
    if generator.random() < 0.5:
        path = _any(generator, root)
        _away(path, root)
    path.symlink_to(to)


def _away(path: Path, root: Path) -> None:
    if path != root / NAME:
        path.rename(root / f"away{len(list(root.iterdir()))}")


def _hardlink(generator: random.Random, root: Path) -> None:
    os.link(_any(generator, root), _new(generator, root))


def _rename(generator: random.Random, root: Path) -> None:
    _any(generator, root).rename(_new(generator, root))


def _swap(generator: random.Random, root: Path) -> None:
    one, other = _any(generator, root), _any(generator, root)
    if one.is_file() and other.is_file():
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)


def _damage(generator: random.Random, root: Path) -> None:
    path = _any(generator, root)
    if not path.is_file():
        return
    content = bytearray(path.read_bytes())
    if content and generator.random() < 0.7:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    else:
        content = content[: generator.randrange(len(content) + 1)]
    path.write_bytes(content)


def _forbid(generator: random.Random, root: Path) -> None:
    _any(generator, root).chmod(generator.choice([0o000, 0o400, 0o100]))


def _pack(generator: random.Random, root: Path) -> None:
    """Move the folder of the packs out, whole or in part."""
    folder = root / "p" / "npu"
    folder.parent.mkdir(exist_ok=True)
    if generator.random() < 0.5:
        (root / NAME / "npu").rename(folder)
    else:
        folder.mkdir(exist_ok=True)
        for path in sorted((root / NAME / "npu").iterdir())[: generator.randint(0, 4)]:
            path.rename(folder / path.name)


ACTIONS = (
    *(_remove, _make, _make, _mkdir, _fifo, _link, _link, _hardlink, _rename, _swap, _damage),
    *(_damage, _forbid, _pack),
)


def main() -> None:
    """Change as many folders as asked for, and count what became of them."""
    count, first = int(sys.argv[1]), int([*sys.argv[2:], "0"][0])
    golden = Path(__file__).resolve().parents[1] / "golden/folders.json"
    base = json.loads(golden.read_text(encoding="utf-8"))["bases"][0]
    counts: collections.Counter[str] = collections.Counter()
    whole = 0
    for seed in range(first, first + count):
        generator = random.Random(seed)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            make_base(root, base, ())
            mutate(generator, root)
            packs = {"sm8650": root / "p"} if (root / "p").is_dir() else {}
            try:
                found = try_all(root / NAME, packs)
            except BaseException:
                print(f"seed {seed}", file=sys.stderr)
                raise
            finally:
                for path in root.rglob("*"):
                    if path.is_dir() and not path.is_symlink():
                        path.chmod(0o700)
            counts += found
            whole += set(found) == {""}
    print(f"{count} folders, {whole} whole; {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
