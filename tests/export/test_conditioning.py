"""Where a denoiser is cut so that its conditioning runs once: found, carried out, and refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from comparing import lively, relative_error
from conditioned_networks import (
    WIDTH,
    CallsTwice,
    CallsTwiceAlike,
    ChangesInPlace,
    CrossAttends,
    Guides,
    Many,
    MixesFirst,
    Nests,
    Repeats,
    SharesInside,
    UsesBoth,
)
from small_unet import SpatioTemporalUNet, UNetConfig
from tiny_mobilevd import TINY_UNET
from tiny_models import tiny_networks
from torch import Tensor, nn

from mvsdk_export.checkpoints.cut_graph import ConditioningGraph, StepGraph, cut_graph
from mvsdk_export.families.conditioning import cut_recipe
from mvsdk_export.families.cut import Argument, Cut
from mvsdk_export.families.recipe import TensorRecipe
from mvsdk_export.families.sticker.recipe import STICKER
from mvsdk_export.families.svd.graphs import DenoiserGraph, OneStepGraph
from mvsdk_export.families.svd.unet import SVDUNet
from mvsdk_export.graphs.capture import capture
from mvsdk_export.layers.selection import ENGINES, select_implementations_
from mvsdk_export.planning.conditioning import cut_of
from mvsdk_export.planning.data_flow import MAX_TENSORS

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("seeded")]

SIMPLE = {
    "sample": torch.zeros(1, 3, WIDTH),
    "timestep": torch.zeros(1),
    "context": torch.zeros(1, 3, WIDTH),
}
ONCE = ("context",)


def arguments_of(inputs: Mapping[str, Tensor]) -> tuple[Argument, ...]:
    return tuple(
        Argument(name=name, shape=tuple(x.shape), dtype="float32") for name, x in inputs.items()
    )


def find(
    build: Callable[[], nn.Module],
    inputs: Mapping[str, Tensor] = SIMPLE,
    once: Collection[str] = ONCE,
    *,
    names: Collection[str] = (),
    min_share: float = 0.0,
) -> Cut | None:
    with torch.device("meta"):
        graph = build().eval()
    arguments = arguments_of(inputs)
    return cut_of(graph, "denoiser", arguments, once, names=names, min_share=min_share)


def cut_apart(
    build: Callable[[], nn.Module], cut: Cut
) -> tuple[nn.Module, ConditioningGraph, StepGraph]:
    """Return a network of random weights, whole and as both of its parts."""
    whole = lively(build())
    copies = [lively(build()) for _ in range(2)]
    for copy in copies:
        copy.load_state_dict(whole.state_dict())
    return whole, ConditioningGraph(copies[0], cut).eval(), StepGraph(copies[1], cut).eval()


def run_both(
    once: ConditioningGraph, steps: StepGraph, inputs: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the result of the steps, twice on one conditioning, the second time at other noise."""
    with torch.no_grad():
        crossing = once(*(inputs[name] for name in once.cut.conditioning_inputs))
        results: list[Tensor] = []
        for factor in (1.0, 0.5):
            changed = {
                name: inputs[name] if name in ONCE else inputs[name] * factor
                for name in steps.cut.step_inputs
            }
            results.append(steps(*changed.values(), *crossing))
    return results


def check_equal(build: Callable[[], nn.Module], cut: Cut) -> StepGraph:
    whole, once, steps = cut_apart(build, cut)
    inputs = {name: torch.randn(x.shape) for name, x in SIMPLE.items()}
    for factor, result in zip((1.0, 0.5), run_both(once, steps, inputs), strict=True):
        changed = {name: x if name in ONCE else x * factor for name, x in inputs.items()}
        with torch.no_grad():
            assert relative_error(result, whole(*changed.values())) <= 1e-5
    return steps


def paths_of(cut: Cut | None) -> list[tuple[str, int]]:
    assert cut is not None
    return [(item.module, item.call) for item in cut.crossings]


def test_keys_and_values_of_the_conditioning_cross() -> None:
    cut = find(CrossAttends)
    assert cut is not None
    assert paths_of(cut) == [("to_k", 0), ("to_v", 0)]
    assert (cut.component, cut.name) == ("denoiser", "denoiser_conditioning")
    assert (cut.conditioning_inputs, cut.step_inputs) == (("context",), ("sample", "timestep"))
    assert [item.name for item in cut.crossings] == ["to_k", "to_v"]
    assert [item.shape for item in cut.crossings] == [(1, 3, WIDTH)] * 2
    assert cut.crossing_bytes == 2 * 4 * 3 * WIDTH
    check_equal(CrossAttends, cut)


def test_conditioning_that_is_mixed_with_noise_at_once_leaves_nothing_to_cut() -> None:
    assert find(MixesFirst) is None


def test_an_input_that_steps_read_too_stays_with_them() -> None:
    cut = find(UsesBoth)
    assert paths_of(cut) == [("to_k", 0)]
    assert cut is not None
    assert cut.conditioning_inputs == ("context",)
    assert cut.step_inputs == ("sample", "timestep", "context")
    check_equal(UsesBoth, cut)


def test_one_of_two_calls_crosses_and_the_other_is_computed() -> None:
    cut = find(CallsTwice)
    assert paths_of(cut) == [("to_k", 1)]
    assert cut is not None
    assert cut.crossings[0].calls == 2
    assert cut.crossings[0].name == "to_k_1"
    steps = check_equal(CallsTwice, cut)
    assert steps.network.get_submodule("to_k").weight is not None


def test_a_module_all_of_whose_calls_cross_leaves_its_weights_behind() -> None:
    cut = find(CallsTwiceAlike)
    assert paths_of(cut) == [("to_k", 0), ("to_k", 1)]
    assert cut is not None
    steps = check_equal(CallsTwiceAlike, cut)
    assert "network.to_k.weight" not in steps.state_dict()
    assert "network.to_q.weight" in steps.state_dict()


def test_what_guidance_evaluates_on_nothing_is_constant_and_does_not_cross() -> None:
    cut = find(Guides)
    assert paths_of(cut) == [("to_k", 1), ("to_v", 1)]
    assert cut is not None
    check_equal(Guides, cut)


def test_what_only_repeats_values_is_done_again_at_every_step() -> None:
    cut = find(Repeats)
    assert paths_of(cut) == [("to_k", 0)]
    assert cut is not None
    check_equal(Repeats, cut)


def test_the_outermost_module_that_gives_a_result_is_cut_off_whole() -> None:
    cut = find(Nests)
    assert paths_of(cut) == [("pair", 0), ("to_v", 0)]
    assert cut is not None
    steps = check_equal(Nests, cut)
    assert not any(name.startswith("network.pair.") for name in steps.state_dict())


def test_a_module_that_also_runs_inside_of_another_does_not_cross() -> None:
    cut = find(SharesInside)
    assert paths_of(cut) == [("pair", 0)]
    assert cut is not None
    assert cut.step_inputs == ("sample", "timestep", "context")


def test_networks_that_change_tensors_in_place_stay_whole() -> None:
    assert find(ChangesInPlace) is None


def test_networks_that_cannot_run_stay_whole() -> None:
    assert find(CrossAttends, {**SIMPLE, "context": torch.zeros(1, 3, WIDTH + 1)}) is None


def test_a_cut_that_saves_too_little_is_not_made() -> None:
    # Of q, k, v and two products: 2 of 3 x 8 x 8 x 3 and 2 x 3 x 3 x 8 multiplications.
    share = 2 * 3 * 8 * 8 / (3 * 3 * 8 * 8 + 2 * 3 * 3 * 8)
    assert find(CrossAttends, min_share=share - 1e-6) is not None
    assert find(CrossAttends, min_share=share + 1e-6) is None


def test_no_input_that_stays_the_same_is_no_cut() -> None:
    assert find(CrossAttends, once=()) is None


def test_no_component_has_more_tensors_than_the_format_allows() -> None:
    cut = find(Many)
    assert cut is not None
    assert len(cut.step_inputs) + len(cut.crossings) <= MAX_TENSORS
    assert len(cut.crossings) > MAX_TENSORS - 8
    assert "last" in [item.module for item in cut.crossings]  # it saves the most
    check_equal(Many, cut)


def test_names_of_tensors_are_unique() -> None:
    cut = find(CrossAttends, names={"to_k", "to_v_2"})
    assert cut is not None
    assert [item.name for item in cut.crossings] == ["to_k_2", "to_v"]


def test_a_step_graph_whose_network_calls_other_modules_is_refused() -> None:
    cut = find(CrossAttends)
    assert cut is not None
    inputs = [torch.randn(x.shape) for x in SIMPLE.values()]
    with pytest.raises(
        RuntimeError, match="to_k is called 2 times, the cut was made where it is 1"
    ):
        ConditioningGraph(CallsTwiceAlike(), cut)(inputs[2])
    with pytest.raises(RuntimeError, match="called 2 times, 1 are given"):
        StepGraph(CallsTwiceAlike(), cut)(*inputs[:2], inputs[2], inputs[2])
    with pytest.raises(RuntimeError, match="to_k is called 0 times"):
        StepGraph(Nests(), cut)(*inputs[:2], inputs[2], inputs[2])


def test_a_cut_of_another_network_is_refused() -> None:
    cut = find(CrossAttends)
    assert cut is not None
    with pytest.raises(ValueError, match="has no module to_k"):
        StepGraph(nn.Linear(2, 2), cut)


def test_inputs_go_by_place_or_by_name() -> None:
    cut = find(CrossAttends)
    assert cut is not None
    _, once, steps = cut_apart(CrossAttends, cut)
    inputs = {name: torch.randn(x.shape) for name, x in SIMPLE.items()}
    crossing = once(context=inputs["context"])
    named = dict(zip(["to_k", "to_v"], crossing, strict=True))
    given = {name: inputs[name] for name in cut.step_inputs}
    assert torch.equal(steps(**given, **named), steps(*given.values(), *crossing))
    with pytest.raises(TypeError, match="lacks its input to_v"):
        steps(**given, to_k=crossing[0])


def test_both_parts_are_captured_without_what_they_do_not_need() -> None:
    cut = find(Guides)
    assert cut is not None
    _, once, steps = cut_apart(Guides, cut)
    crossing = {name: torch.zeros(1, 3, WIDTH) for name in ("to_k_1", "to_v_1")}
    for part, inputs, layers in (
        (once, {"context": SIMPLE["context"]}, ["to_k", "to_v"]),
        (steps, {n: SIMPLE[n] for n in cut.step_inputs} | crossing, ["to_q"]),
    ):
        program = capture(part, inputs)
        calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
        evaluations = 1 if part is once else 2
        assert calls.count(torch.ops.aten.linear.default) == len(layers) * evaluations
        weights = {name for name in program.state_dict if name.endswith(".weight")}
        assert weights == {f"network.{layer}.weight" for layer in layers}


def sticker_network() -> nn.Module:
    with torch.device("cpu"):
        network = tiny_networks()["transformer"]
    return network.to(torch.get_default_device())


STICKER_INPUTS = {
    "sample": torch.zeros(8, 8, 8, 8),
    "timestep": torch.full((1,), 0.5),
    "encoder_hidden_states": torch.zeros(1, 16 + 2 * 5, 32),
}
TEXT = ("encoder_hidden_states",)
PICTURE = ("encoder_hidden_states", "image_latents", "added_time_ids")


def small_unet(**fields: Any) -> SVDUNet:
    return lively(SVDUNet(replace(TINY_UNET, **fields)))


def svd_inputs(*, size: int = 8, one_step: bool = False) -> dict[str, Tensor]:
    found = {
        "sample": torch.zeros(4, 4, size, size),
        "timestep": torch.full((1,), 0.5),
        "encoder_hidden_states": torch.zeros(1, 1, 16),
        "image_latents": torch.zeros(1, 4, size, size),
        "added_time_ids": torch.zeros(1, 3),
    }
    return {name: x for name, x in found.items() if not (one_step and name == "timestep")}


UNET_CONFIG = UNetConfig(latent_channels=4, num_frames=4, channels=(32, 64), context_dim=16)
UNET_INPUTS = {
    "sample": torch.zeros(4, 4, 8, 8),
    "timestep": torch.full((1,), 0.5),
    "encoder_hidden_states": torch.zeros(1, 6, 16),
}

NETWORKS: dict[
    str, tuple[Callable[[], nn.Module], Callable[[], Mapping[str, Tensor]], Collection[str]]
] = {
    "sticker": (sticker_network, lambda: STICKER_INPUTS, TEXT),
    "cross_attention": (lambda: SpatioTemporalUNet(UNET_CONFIG), lambda: UNET_INPUTS, TEXT),
    "svd": (lambda: DenoiserGraph(small_unet()), svd_inputs, PICTURE),
    "svd_folded": (
        lambda: DenoiserGraph(small_unet(folded_cross_attention=True)),
        svd_inputs,
        PICTURE,
    ),
    "svd_guidance": (lambda: DenoiserGraph(small_unet(), (1.0, 3.0)), svd_inputs, PICTURE),
    "animator": (
        lambda: OneStepGraph(small_unet(folded_cross_attention=True, frame_levels=1)),
        lambda: svd_inputs(one_step=True),
        PICTURE,
    ),
}
CROSSING = {
    "sticker": ["text_in", "notes_in", "pictures.shuffle", "pictures.shear"],
    "cross_attention": ["text_projection", "down.0.cross_attention.to_k"],
    "svd": [
        "unet.add_embedding",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
    ],
    "svd_folded": ["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"],
    "svd_guidance": ["unet.add_embedding"],
    "animator": ["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_cut_networks_compute_what_the_whole_does_on_every_engine(name: str) -> None:
    build, examples, conditioning = NETWORKS[name]
    inputs = {
        key: x if key == "timestep" else torch.randn(x.shape) for key, x in examples().items()
    }
    cut = find(build, inputs, conditioning)
    assert cut is not None
    assert set(CROSSING[name]) <= {item.module for item in cut.crossings}
    whole, once, steps = cut_apart(build, cut)
    for engine in (None, *ENGINES):
        if engine is not None:
            for network in (whole, once, steps):
                select_implementations_(network, engine)
        with torch.no_grad():
            crossing = once(*(inputs[key] for key in cut.conditioning_inputs))
            result = steps(*(inputs[key] for key in cut.step_inputs), *crossing)
            assert relative_error(result, whole(*inputs.values())) <= 1e-5, engine


def test_a_picture_that_stands_beside_the_noise_stays_an_input_of_the_steps() -> None:
    build, examples, conditioning = NETWORKS["svd"]
    cut = find(build, examples(), conditioning)
    assert cut is not None
    assert cut.step_inputs == ("sample", "timestep", "image_latents")
    assert cut.conditioning_inputs == ("encoder_hidden_states", "added_time_ids")


def test_public_video_networks_are_left_whole_as_it_would_not_pay() -> None:
    build, _, conditioning = NETWORKS["svd"]
    inputs = svd_inputs(size=32)
    with torch.device("meta"):
        graph = build().eval()
    assert cut_of(graph, "unet", arguments_of(inputs), conditioning) is None


def test_roles_say_which_part_of_a_graph_a_component_is() -> None:
    cut = find(sticker_network, STICKER_INPUTS, TEXT)
    assert cut is not None
    recipe = cut_recipe(STICKER, Cut(**{**_fields(cut), "component": "transformer"}))
    names = [part.name for part in recipe.components]
    assert names == ["text_encoder", "denoiser_conditioning", "transformer", "vae_decoder"]
    once, steps = recipe.components[1:3]
    assert (once.role, steps.role, recipe.denoiser) == ("conditioning", "denoiser", "transformer")
    assert [tensor.name for tensor in once.inputs] == ["encoder_hidden_states"]
    crossing = [
        TensorRecipe(name=item.name, shape=item.shape, dtype="float32") for item in cut.crossings
    ]
    assert list(once.outputs) == crossing == list(steps.inputs[2:])
    assert (once.folder, once.weights, steps.outputs) == (
        steps.folder,
        steps.weights,
        STICKER.component("transformer").outputs,
    )
    for precision, floors in STICKER.floors_db.items():
        assert recipe.floors_db[precision]["denoiser_conditioning"] == floors["transformer"]
    assert isinstance(cut_graph(once, sticker_network()), ConditioningGraph)
    assert isinstance(cut_graph(steps, sticker_network()), StepGraph)


def _fields(cut: Cut) -> dict[str, Any]:
    return {name: getattr(cut, name) for name in Cut.__dataclass_fields__}
