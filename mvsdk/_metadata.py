"""What a clip says of its own making, and how each kind of file carries it.

One line of JSON in UTF-8: the version of mvsdk, prompt or name of the picture, seed, steps, and the
hash of the bundle's manifest, by which the clip can be made again. There is no date in it, so equal
clips stay equal files. An mp4 has it as the container's `comment`, a GIF as its comment, a PNG as
an iTXt chunk `Comment`, a WebP as `dc:description` in XMP.
"""

from __future__ import annotations

import json
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvsdk.video import Video

# Half a surrogate pair is no UTF-8, and XML has no U+FFFE; JSON can escape them all.
_UNWRITABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    '<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:description>'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def describe_making(video: Video) -> str | None:
    """Return how a clip was made, one line of JSON; None for one that no pipeline made."""
    if video.bundle_sha256 is None:
        return None
    from mvsdk import __version__

    said = {
        "mvsdk": __version__,
        "prompt": video.prompt,
        "picture": video.picture,
        **{name: whole_or_not(value) for name, value in video.numbers.items()},
        "seed": video.seed,
        "num_inference_steps": video.num_inference_steps,
        "bundle_sha256": video.bundle_sha256,
    }
    known = {name: value for name, value in said.items() if value is not None}
    text = json.dumps(known, ensure_ascii=False)
    return _UNWRITABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def whole_or_not(value: float) -> float:
    """Return a whole number as an int, which is spelled without a fraction."""
    return int(value) if value.is_integer() else value


def to_xmp(text: str) -> bytes:
    """Return an XMP packet whose `dc:description` is a text."""
    return _XMP.format(escape(text, quote=False)).encode()
