"""Count what damaged graphs do to their runtimes: signed as if whole, loaded and run isolated.

    python benchmarks/damage.py BUNDLE... [--trials 300] [--bytes 1] [--limit 20]

Every trial changes some bytes of one model file of a copy of the bundle, signs the copy anew, loads
the graph of that file and runs it on zeros. It works, is refused, ends its process or takes too
long. Equal seeds make equal damage.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

import mvsdk
from mvsdk.backends.isolated import Isolation
from mvsdk.bundle import BundleWriter
from mvsdk.manifest import FileRef, Variant

_END = re.compile(r"died with (\S+)|(had not (?:loaded|run))")
_GRAPHS = (".onnx", ".bin", ".pte", ".mlirb")


def main() -> int:
    """Try the damage and print what became of it."""
    keep = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=keep)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=1, help="bytes changed by each trial")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds a graph may take")
    options = parser.parse_args()
    for path in options.bundles:
        with tempfile.TemporaryDirectory() as folder:
            found = _try(mvsdk.Bundle.open(path), Path(folder) / path.name, options)
        told = ", ".join(f"{count} {what}" for what, count in found.most_common())
        print(f"{path.name}, {options.trials} trials of {options.bytes} bytes: {told}", flush=True)
    return 0


def _try(sound: mvsdk.Bundle, out: Path, options: argparse.Namespace) -> Counter[str]:
    limits = Isolation(load_timeout_s=options.limit, run_timeout_s=options.limit)
    pipeline = mvsdk.load(sound.path, isolated=limits)
    variants = pipeline.selection.variants
    files = [
        (name, ref)
        for name, variant in variants.items()
        for ref in variant.files
        if ref.path.endswith(_GRAPHS)
    ]
    found: Counter[str] = Counter()
    for seed in range(options.trials):
        generator = random.Random(seed)
        name, ref = generator.choice(files)
        damaged = _damaged(sound, out, ref, generator, options.bytes)
        chosen = damaged.manifest.components[name].variants
        variant = next(item for item in chosen if item.key == variants[name].key)
        found[_outcome(pipeline.selection.backends[name], damaged, variant)] += 1
    pipeline.close()
    return found


def _damaged(
    sound: mvsdk.Bundle, out: Path, damaged: FileRef, generator: random.Random, count: int
) -> mvsdk.Bundle:
    """Copy a bundle with some bytes of one file changed, and hashes that are right."""
    shutil.rmtree(out, ignore_errors=True)
    with BundleWriter(out) as writer:
        refs: dict[str, FileRef] = {}
        for ref in sound.manifest.files():
            refs[ref.path] = writer.add_file(ref.path, source=sound.path / ref.path)
        path = writer.directory / damaged.path
        data = bytearray(path.read_bytes())
        for _ in range(count):
            data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        refs[damaged.path] = writer.add_file(damaged.path)
        components = {
            name: replace(
                component,
                variants=tuple(
                    replace(variant, files=tuple(refs[ref.path] for ref in variant.files))
                    for variant in component.variants
                ),
            )
            for name, component in sound.manifest.components.items()
        }
        return writer.commit(replace(sound.manifest, components=components))


def _outcome(backend: mvsdk.Backend, bundle: mvsdk.Bundle, variant: Variant) -> str:
    inputs = {spec.name: np.zeros(spec.shape, np.float32) for spec in variant.inputs}
    inputs |= {
        spec.name: np.zeros(spec.shape, spec.dtype)
        for spec in variant.inputs
        if spec.dtype in ("int32", "int64", "uint8") and spec.scale is None
    }
    try:
        session = backend.load(bundle, variant)
        session.run(inputs)
        session.close()
    except mvsdk.MvsdkError as exc:
        ended = _END.search(str(exc))
        if ended is None:
            return "refused"
        return f"died with {ended[1]}" if ended[1] else "took too long"
    return "worked"


if __name__ == "__main__":
    sys.exit(main())
