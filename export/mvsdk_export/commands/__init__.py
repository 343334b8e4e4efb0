"""The verbs that the toolchain adds to `mvsdk`: one module each, light to import.

Whatever needs torch is imported inside `run`, after `require_toolchain` has looked for it.
"""
