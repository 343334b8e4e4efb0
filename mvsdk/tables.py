"""Tables of a bundle: arrays as files of plain numbers (docs/bundle_format.md, P17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mvsdk.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mvsdk.bundle import Bundle
    from mvsdk.manifest import Table


def read_table(bundle: Bundle, table: Table) -> NDArray[Any]:
    """Return a table of a bundle.

    Returns:
        Float32, int32 or uint8, read-only.

    Raises:
        BundleError: If its file is damaged, or holds a number that is not finite.
    """
    path = bundle.file(table.file)
    stored = np.fromfile(path, np.dtype(table.dtype).newbyteorder("<"))
    array = stored.astype(table.dtype, copy=False).reshape(table.shape)
    if not np.isfinite(array).all():
        raise BundleError(
            f"bundle {bundle.path.name}: {table.file.path} holds nan or infinity; "
            "export the bundle again",
            rule="P17",
        )
    array.flags.writeable = False
    return array
