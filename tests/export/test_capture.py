"""Networks as exported programs: folded constants, known places, pixels at the border."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from mvsdk_export.errors import UnsupportedOpError  # noqa: E402
from mvsdk_export.graphs.capture import PixelBorders, capture  # noqa: E402

pytestmark = pytest.mark.torch


class Computed(nn.Module):
    """A product with a weight that the graph itself makes of another, and of a table of sines."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 4))
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        places = torch.sin(torch.arange(8, dtype=x.dtype, device=x.device))
        kernel = torch.round(self.weight.abs().sqrt() * 4) / 4 * places[:, None]
        return nn.functional.linear(x, kernel, self.bias) + places


class Frames(nn.Module):
    """Some frames of a clip."""

    def __init__(self, places: list[int]) -> None:
        super().__init__()
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(0, torch.tensor(self.places)) * 2


def operators(program: torch.export.ExportedProgram) -> Counter[str]:
    return Counter(str(x.target) for x in program.graph.nodes if x.op == "call_function")


def test_what_changes_in_place_is_refused() -> None:
    class Filled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made = torch.zeros_like(x)
            made[:, 0] = x[:, 1]
            return made

    with pytest.raises(UnsupportedOpError, match=r"changes a tensor in place, with aten.copy_"):
        capture(Filled(), {"x": torch.ones(2, 3)})


def test_what_is_decided_by_values_is_refused() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(UnsupportedOpError, match=r"Deciding cannot be captured: .* shapes alone"):
        capture(Deciding(), {"x": torch.ones(2, 3)})


def test_what_depends_on_weights_alone_is_folded() -> None:
    network, x = Computed().eval(), torch.randn(3, 4)
    program = capture(network, {"x": x})
    assert operators(program) == {"aten.linear.default": 1, "aten.add.Tensor": 1}
    assert torch.equal(program.module()(x), network(x))


@pytest.mark.parametrize(
    ("places", "slices"), [([0, 2, 4], 1), ([0, 0, 1, 1], 3), ([3, 1, 2], 2), ([5], 1)]
)
def test_gathers_at_known_places_become_slices(places: list[int], slices: int) -> None:
    network, x = Frames(places).eval(), torch.randn(6, 2)
    program = capture(network, {"x": x})
    found = operators(program)
    assert found["aten.slice.Tensor"] == slices
    assert not any("index" in name for name in found)
    assert torch.equal(program.module()(x), network(x))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_pixels_cross_as_whole_numbers(dtype: torch.dtype) -> None:
    graph = PixelBorders(
        nn.Identity(),
        ["image"],
        ["frames"],
        pixel_inputs=["image"],
        pixel_outputs=["frames"],
        dtype=dtype,
    )
    pixels = torch.arange(256).to(dtype).reshape(1, 16, 16)
    given = graph(pixels)
    assert given.dtype == dtype
    assert torch.equal(given, pixels)


def test_halves_of_pixels_round_to_even_unless_gradients_shall_pass() -> None:
    graph = PixelBorders(
        nn.Identity(), ["x"], ["frames"], pixel_outputs=["frames"], dtype=torch.float32
    )
    x = (torch.tensor([0.5, 1.5, 2.5, 254.5]) / 255).requires_grad_()
    assert graph(x).tolist() == [0.0, 2.0, 2.0, 254.0]
    graph.rounds = False
    graph(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [255.0] * 4
