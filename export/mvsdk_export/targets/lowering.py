"""Stages that lower one component to what a bundle ships, by way of ONNX or from PyTorch."""

from __future__ import annotations

from mvsdk_export.planning.lowering import Lowering
from mvsdk_export.targets.network_lowering import Source, lower_networks
from mvsdk_export.targets.onnx.lowering import lower_graphs, trace_graphs

__all__ = ["Lowering", "Source", "lower_graphs", "lower_networks", "trace_graphs"]
