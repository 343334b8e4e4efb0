"""What an operation is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Arguments:
    """The parameters of one operation, read by name."""

    def __init__(
        self,
        bound: Mapping[str, tuple[str, ...]],
        inline: Mapping[str, Any],
        values: Mapping[str, Any],
        constants: Mapping[str, Any],
    ) -> None:
        """Hold the places where parameters are.

        Args:
            bound: Parameter -> names of values or constants.
            inline: Parameter -> constant of the operation itself.
            values: Values that were computed.
            constants: Constants of the program.
        """
        self._bound = bound
        self._inline = inline
        self._values = values
        self._constants = constants

    def has(self, name: str) -> bool:
        """Return whether a parameter is given."""
        return name in self._bound or name in self._inline

    def all(self, name: str) -> list[Any]:
        """Return what is given for a parameter that takes several."""
        if name in self._bound:
            return [self._find(x) for x in self._bound[name]]
        found = self._inline[name]
        return found if isinstance(found, list) else [found]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a parameter, or what it is where it is not given."""
        if name in self._bound:
            (single,) = self._bound[name]
            return self._find(single)
        return self._inline.get(name, default)

    def tensor(self, name: str = "x") -> torch.Tensor:
        """Return a tensor that must be given."""
        found = self.get(name)
        if not isinstance(found, torch.Tensor):
            raise TypeError(f"the parameter {name} is missing")
        return found

    def ints(self, name: str, default: list[int] | None = None) -> list[int]:
        """Return whole numbers."""
        found = self.get(name)
        if found is None:
            if default is None:
                raise ValueError(f"the parameter {name} is missing")
            return default
        return [int(x) for x in found.reshape(-1).tolist()]

    def int(self, name: str, default: int | None = None) -> int:
        """Return a whole number."""
        (found,) = self.ints(name, None if default is None else [default])
        return found

    def float(self, name: str, default: float = 0.0) -> float:
        """Return a number."""
        found = self.get(name)
        return default if found is None else float(found)

    def bool(self, name: str, default: bool = False) -> bool:
        """Return a truth value."""
        found = self.get(name)
        return default if found is None else bool(found)

    def bools(self, name: str, count: int) -> list[bool]:
        """Return truth values, all false where none are given."""
        found = self.get(name)
        return [False] * count if found is None else [bool(x) for x in found.reshape(-1).tolist()]

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        return str(self.get(name, default))

    def _find(self, name: str) -> Any:
        return self._values[name] if name in self._values else self._constants[name]
