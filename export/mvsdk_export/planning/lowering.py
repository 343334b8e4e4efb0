"""What is lowered: a component, and the variants that are made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mvsdk_export.families import ComponentRecipe
from mvsdk_export.planning.request import VariantPlan, graph_source

GRAPH_FORMATS = ("onnx", "qnn_context")
"""Formats that are made of ONNX graphs; the others are made of PyTorch networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """What is made of one component."""

    component: ComponentRecipe
    plans: tuple[VariantPlan, ...]
    """Variants that are wanted."""
    parts: int
    """Parts that the ONNX graph is cut into; 1: it is not."""
    floors_db: Mapping[str, float] = field(default_factory=dict)
    """Precision -> lowest accepted parity of this component."""

    @property
    def graph_plans(self) -> tuple[VariantPlan, ...]:
        """Variants that are made of the ONNX graph."""
        return tuple(plan for plan in self.plans if plan.format in GRAPH_FORMATS)

    @property
    def traces(self) -> tuple[bool, ...]:
        """Float32 graphs that they are made of: True for the one in forms of the HTP's float16."""
        return tuple(sorted({graph_source(plan).htp_float16 for plan in self.graph_plans}))

    @property
    def network_plans(self) -> tuple[VariantPlan, ...]:
        """Variants that are made of the PyTorch network."""
        return tuple(plan for plan in self.plans if plan.format not in GRAPH_FORMATS)

    @property
    def whole_plans(self) -> tuple[VariantPlan, ...]:
        """Variants that are made of the graph in one piece."""
        return tuple(plan for plan in self.graph_plans if not self._is_cut(plan))

    @property
    def cut_plans(self) -> tuple[VariantPlan, ...]:
        """Variants that are made of the parts of the graph."""
        return tuple(plan for plan in self.graph_plans if self._is_cut(plan))

    def _is_cut(self, plan: VariantPlan) -> bool:
        """Tell whether a variant needs parts: ONNX keeps float32 weights of any size in a file."""
        return self.parts > 1 and (plan.target, plan.precision) != ("onnx", "fp32")
