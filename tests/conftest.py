"""First of all, `mvsdk` is imported: it turns off what dependencies report about their users."""

import mvsdk  # noqa: F401
