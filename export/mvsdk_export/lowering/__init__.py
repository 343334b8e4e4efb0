"""Stages that lower one component to what a bundle ships, by way of ONNX or from PyTorch."""

from __future__ import annotations

from mvsdk_export.lowering.graphs import lower_graphs, trace_graphs
from mvsdk_export.lowering.networks import Source, lower_networks
from mvsdk_export.lowering.spec import Lowering

__all__ = ["Lowering", "Source", "lower_graphs", "lower_networks", "trace_graphs"]
