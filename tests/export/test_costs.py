"""Costs against counts by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tiny_models import tiny_networks  # noqa: E402 - after the check for torch
from torch import Tensor, nn  # noqa: E402

from mvsdk_export.checkpoints import load_configs  # noqa: E402
from mvsdk_export.checkpoints.building import build_on_meta, wrap  # noqa: E402
from mvsdk_export.errors import CheckpointError, ExportError  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402
from mvsdk_export.families.sticker.transformer import TransformerConfig  # noqa: E402
from mvsdk_export.layers.blocks import SpatialAttention  # noqa: E402
from mvsdk_export.layers.selection import select_implementations_  # noqa: E402
from mvsdk_export.planning.costs import (  # noqa: E402
    ComponentCosts,
    count_flops,
    measure_graph,
    measure_recipe,
)

STICKER = find_recipe("sticker")


def _meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _measure(module: nn.Module, *inputs: Tensor) -> ComponentCosts:
    return measure_graph("graph", module.to("meta").eval(), *inputs)


def _sticker(folder: Path, *, num_frames: int = 8, size: int = 32) -> dict[str, ComponentCosts]:
    costs = measure_recipe(
        STICKER,
        load_configs(folder, STICKER),
        num_frames=num_frames,
        height=size,
        width=size,
    )
    return {item.component: item for item in costs}


def test_convolution_takes_two_operations_per_multiply_add() -> None:
    costs = _measure(nn.Conv2d(3, 16, 3, padding=1), _meta(2, 3, 10, 20))
    assert costs.flops == 2 * (2 * 10 * 20) * 16 * (3 * 3 * 3)
    assert costs.parameters == 16 * 27 + 16


def test_strided_and_grouped_convolutions_take_less() -> None:
    costs = _measure(nn.Conv2d(8, 8, 2, stride=2, groups=4), _meta(1, 8, 8, 8))
    assert costs.flops == 2 * (4 * 4) * 8 * (2 * 2 * 2)


def test_linear_layer_takes_rows_times_weights() -> None:
    assert _measure(nn.Linear(12, 5), _meta(7, 12)).flops == 2 * 7 * 12 * 5


def test_attention_takes_projections_and_two_products() -> None:
    frames, channels, positions = 3, 64, 4 * 5
    costs = _measure(SpatialAttention(channels), _meta(frames, channels, 4, 5))
    projections = frames * positions * channels * (3 * channels + channels)
    products = 2 * frames * positions * positions * channels
    assert costs.flops == 2 * (projections + products)


def test_every_module_that_runs_is_counted() -> None:
    network = nn.Sequential(nn.Linear(12, 5), nn.Sequential(nn.Linear(5, 3))).to("meta")
    inner = 2 * 7 * 5 * 3
    counts = count_flops(network, _meta(7, 12))
    assert counts == {"": 2 * 7 * 12 * 5 + inner, "0": 2 * 7 * 12 * 5, "1": inner, "1.0": inner}
    assert count_flops(network[1].forward, _meta(7, 5))[""] == inner


def test_what_cannot_run_cannot_be_counted() -> None:
    with pytest.raises(ExportError, match=r"for inputs of shape \(7, 4\): .*; choose") as caught:
        count_flops(nn.Linear(12, 5).to("meta"), _meta(7, 4))
    assert "\n" not in str(caught.value)


def test_kernels_and_vectors_have_their_widths_in_each_precision() -> None:
    costs = _measure(nn.Conv2d(4, 8, 3), _meta(1, 4, 8, 8))
    kernel, bias = 8 * 4 * 9, 8
    assert costs.weight_bytes == {
        "fp32": 4 * (kernel + bias),
        "fp16": 2 * (kernel + bias),
        "w8a16": kernel + 4 * bias,
    }


class _Residual(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wide = torch.cat([x, x, x], dim=1)
        narrow = wide.sum(dim=1, keepdim=True)
        return x + narrow.exp().view(x.shape[0], 1, -1)


def test_activation_peak_is_what_is_alive_at_once() -> None:
    """The input (8) lives to the end; at the sum there are input, wide (24) and narrow (8)."""
    costs = _measure(_Residual(), _meta(1, 1, 8))
    assert costs.activation_peak_bytes == {"fp32": 40 * 4, "fp16": 40 * 2, "w8a16": 40 * 2}
    assert costs.working_set_bytes["fp32"] == 32 * 4
    assert costs.hungriest_operator in ("aten.cat.default", "aten.sum.dim_IntList")


def test_long_chain_needs_no_more_than_two_activations() -> None:
    chain = nn.Sequential(*(nn.Tanh() for _ in range(20)))
    assert _measure(chain, _meta(1, 100)).activation_peak_bytes["fp16"] == 2 * 100 * 2


class _Folded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(10, 10))
        self.unused = nn.Parameter(torch.zeros(1000))

    def forward(self, ids: Tensor) -> Tensor:
        return ids + (self.kernel * torch.arange(10.0)).sum()


def test_what_is_folded_is_no_activation_and_what_is_unused_is_no_weight() -> None:
    costs = _measure(_Folded(), torch.empty(3, dtype=torch.int32, device="meta"))
    assert costs.activation_peak_bytes == {"fp32": 12 + 12, "fp16": 12 + 6, "w8a16": 12 + 6}
    assert costs.parameters == 100


class _Idle(nn.Module):
    """Half of what it computes has no reader, and some of it none that changes with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(8, 8))
        self.idle = nn.Parameter(torch.zeros(8, 64))

    def forward(self, x: Tensor) -> Tensor:
        wide = (x @ self.idle).relu()
        wide.mul_(2)
        constant = self.kernel @ self.kernel
        return x @ constant


def test_what_nobody_reads_costs_nothing() -> None:
    costs = _measure(_Idle(), _meta(3, 8))
    assert costs.parameters == 64
    assert costs.flops == 2 * 3 * 8 * 8
    assert costs.activation_peak_bytes["fp32"] == 4 * (3 * 8 + 3 * 8)


def test_what_is_written_in_place_has_a_reader() -> None:
    class Filled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found = torch.zeros(4, 2)
            found[:2].copy_(x @ x.T)
            return found

    assert _measure(Filled(), _meta(2, 5)).flops == 2 * 2 * 2 * 5


def test_parameters_are_those_of_the_networks(tiny_model_folder: Path) -> None:
    costs, networks = _sticker(tiny_model_folder), tiny_networks()
    for name in ("text_encoder", "transformer"):
        count = sum(p.numel() for p in networks[name].parameters())
        assert costs[name].parameters == count
        assert costs[name].weight_bytes["fp32"] == 4 * count
    decoder = networks["vae_decoder"].get_submodule("decoder")
    assert costs["vae_decoder"].parameters == sum(p.numel() for p in decoder.parameters())


def test_work_grows_with_frames_and_pixels(tiny_model_folder: Path) -> None:
    small = _sticker(tiny_model_folder)
    longer = _sticker(tiny_model_folder, num_frames=16)
    larger = _sticker(tiny_model_folder, size=64)
    assert longer["text_encoder"].flops == small["text_encoder"].flops
    assert longer["vae_decoder"].flops == 2 * small["vae_decoder"].flops
    assert larger["vae_decoder"].flops == 4 * small["vae_decoder"].flops
    assert longer["transformer"].flops > 1.5 * small["transformer"].flops
    peaks = [item["transformer"].activation_peak_bytes["fp16"] for item in (small, larger)]
    assert 3 < peaks[1] / peaks[0] < 5


def test_forms_that_phones_get_are_measured(tiny_model_folder: Path) -> None:
    """Their operations are as many here, but they keep other activations."""
    part, config = STICKER.component("vae_decoder"), tiny_networks()["vae_decoder"].config
    network = build_on_meta(part, config)
    trained = _measure(wrap(part, network), _meta(8, 8, 4, 4)).activation_peak_bytes
    graph = wrap(part, select_implementations_(network, "htp"))
    lowered = _measure(graph, _meta(8, 8, 4, 4)).activation_peak_bytes
    found = _sticker(tiny_model_folder)["vae_decoder"].activation_peak_bytes
    assert found == lowered != trained


def test_denoiser_runs_once_per_step(tiny_model_folder: Path) -> None:
    costs = _sticker(tiny_model_folder)
    assert {name: item.evaluations(4) for name, item in costs.items()} == {
        "text_encoder": 1,
        "transformer": 4,
        "vae_decoder": 1,
    }


def test_networks_too_large_for_this_machine_are_measured(tiny_model_folder: Path) -> None:
    configs = load_configs(tiny_model_folder, STICKER)
    configs["transformer"] = replace(configs["transformer"], width=1 << 16, layers=8)
    transformer = measure_recipe(STICKER, configs, num_frames=8, height=64, width=64)[1]
    assert transformer.weight_bytes["fp32"] > 1 << 40


def test_manifest_numbers_have_their_units(tiny_model_folder: Path) -> None:
    numbers = _sticker(tiny_model_folder)["transformer"].to_numbers()
    assert numbers["flops"] > 0
    assert {"parameters", "weight_w8a16_bytes", "activation_peak_fp16_bytes"} < set(numbers)


def test_size_that_the_graph_cannot_take_is_one_line(tiny_model_folder: Path) -> None:
    configs = load_configs(tiny_model_folder, STICKER)
    with pytest.raises(
        ExportError, match=r"transformer cannot run on inputs of shape .*; choose"
    ) as caught:
        measure_recipe(STICKER, configs, num_frames=8, height=40, width=40)
    assert "\n" not in str(caught.value)


def test_configuration_that_cannot_be_built_is_named() -> None:
    with pytest.raises(
        CheckpointError, match=r"transformer/config\.json describes no SpatioTemporalT"
    ):
        build_on_meta(STICKER.component("transformer"), TransformerConfig(width=-1))
