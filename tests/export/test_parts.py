"""Components that are cut into parts on their way to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("torch")

from exporting import Toolchain
from part_models import Arrays, make_model, run_model
from probe_jobs import Copy
from tiny_mobilevd import write_tiny_animator_folder

import mvsdk
from mvsdk.devices import find_chipset
from mvsdk.manifest import Precision, Target
from mvsdk_export.checkpoints.subject import ClipSize, Subject
from mvsdk_export.errors import ExportError
from mvsdk_export.export import export
from mvsdk_export.families import ComponentRecipe
from mvsdk_export.families.recipe import TensorRecipe
from mvsdk_export.graphs.join import join_models
from mvsdk_export.graphs.split import Part, split_model
from mvsdk_export.jobs.job import Files, Job, Keys, Made, in_order
from mvsdk_export.jobs.progress import Progress
from mvsdk_export.jobs.runner import JobRunner
from mvsdk_export.planning.plan import plan_export
from mvsdk_export.planning.request import ExportRequest, plan_variants
from mvsdk_export.quantize.activations import CALLS, Evaluation, save_calls
from mvsdk_export.quantize.part_inputs import PartFeeds, evaluate_parts
from mvsdk_export.targets import find_spec
from mvsdk_export.targets.artefact import CONTEXT, MODEL, Artefact
from mvsdk_export.targets.onnx.jobs import TraceOnnx
from mvsdk_export.targets.spec import Lowering, VariantPlan

pytestmark = pytest.mark.torch

WIDTH, INNER = 8, 64
NETWORK = ComponentRecipe(
    name="net",
    role="vae_decoder",
    network="",
    config="",
    folder="",
    weights="",
    inputs=(
        TensorRecipe(name="x", shape=(1, WIDTH), dtype="float32"),
        TensorRecipe(name="image", shape=(1, WIDTH), dtype="uint8"),
    ),
    outputs=(TensorRecipe(name="frames", shape=(1, WIDTH), dtype="uint8"),),
)


def plans(
    *precisions: Precision, target: Target = "onnx", chips: Sequence[str] = ()
) -> tuple[VariantPlan, ...]:
    return tuple(
        VariantPlan(
            id=f"{target}-{chip}-{precision}",
            target=target,
            precision=precision,
            chipset=find_chipset(chip) if chip else None,
            format="qnn_context" if chip else "onnx",
            spec=target,
        )
        for precision in precisions
        for chip in chips or [""]
    )


def write_network(path: Path) -> Path:
    """Write three products in sequence; the last stage reads both inputs once more."""
    rng = np.random.default_rng(0)
    shapes = {
        "w0": (WIDTH, INNER),
        "w1": (WIDTH, INNER),
        "w2": (INNER, INNER),
        "w3": (INNER, WIDTH),
    }
    constants = {
        name: rng.normal(size=shape, scale=shape[0] ** -0.5).astype(np.float32)
        for name, shape in shapes.items()
    }
    nodes = [
        helper.make_node(kind, takes.split(), [gives], f"node_{gives}")
        for kind, takes, gives in (
            ("MatMul", "x w0", "a"),
            ("MatMul", "image w1", "b"),
            ("Add", "a b", "c"),
            ("Relu", "c", "d"),
            ("MatMul", "d w2", "e"),
            ("Relu", "e", "f"),
            ("MatMul", "f w3", "g"),
            ("Add", "g x", "h"),
            ("Add", "h image", "i"),
            ("Sigmoid", "i", "frames"),
        )
    ]
    model = make_model(
        nodes,
        constants,
        inputs={"x": (1, WIDTH), "image": (1, WIDTH)},
        outputs={"frames": (1, WIDTH)},
    )
    onnx.save(model, path)
    return path


def make_calls(count: int = 6) -> list[Arrays]:
    rng = np.random.default_rng(1)
    return [
        {
            "x": rng.normal(size=(1, WIDTH)).astype(np.float32),
            "image": rng.integers(0, 256, (1, WIDTH)).astype(np.uint8),
        }
        for _ in range(count)
    ]


class Lowered:
    """Makes variants of the small network."""

    def __init__(self, folder: Path) -> None:
        self.traced, self.recorded = folder / "traced", folder / "recorded"
        for path in (self.traced, self.recorded):
            path.mkdir()
        write_network(self.traced / MODEL)
        calls = [
            Evaluation(component="net", case="", step=None, inputs=x, outputs={})
            for x in make_calls()
        ]
        save_calls(calls, self.recorded / CALLS)
        self.runner = JobRunner(folder / "cache")

    def __call__(
        self, wanted: Sequence[VariantPlan], parts: int, component: ComponentRecipe = NETWORK
    ) -> dict[str, Made[Artefact]]:
        jobs = plan_all(wanted, parts, component, self.traced, self.recorded)
        with self.runner as runner:
            runner.run(list(jobs.values()))
            return {variant: runner[job] for variant, job in jobs.items()}


def plan_all(
    wanted: Sequence[VariantPlan],
    parts: int,
    component: ComponentRecipe = NETWORK,
    traced: Path = Path("traced"),
    recorded: Path = Path("recorded"),
) -> dict[str, Job[Artefact]]:
    """Plan variants of the small network, which lies in a folder as if it was traced."""
    size = ClipSize(num_frames=1, height=8, width=8, decode_frames=1)
    lowering = Lowering(
        component=component,
        plans=tuple(wanted),
        parts=parts,
        model=Files(places={"folder": traced}, fingerprint=f"net {len(component.inputs)}"),
        subject=Subject(component="net", size=size, guidance=None),
        recorded=Copy(files=Files(places={"folder": recorded}, fingerprint="calls")),
    )
    jobs: dict[str, Job[Artefact]] = {}
    for spec in dict.fromkeys(plan.spec for plan in wanted):
        own = [plan for plan in wanted if plan.spec == spec]
        jobs |= find_spec(spec).plan_jobs(lowering, own, None)
    return jobs


@pytest.fixture
def lowered(tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> Lowered:
    """Return what lowers the small network, of its own file in place of what is traced."""
    del in_process

    def trace(job: TraceOnnx, _: object, output: Path) -> dict[str, Any]:
        (output / MODEL).write_bytes((job.model.places["folder"] / MODEL).read_bytes())
        return {}

    monkeypatch.setattr(TraceOnnx, "run", trace)
    return Lowered(tmp_path)


def job_names(wanted: Sequence[VariantPlan], parts: int) -> list[str]:
    """Return the names of the jobs that lower a component, none of which is run."""
    jobs = plan_all(wanted, parts)
    assert jobs.keys() == {plan.id for plan in wanted}
    keys = Keys()
    found = {keys[job]: job.name for job in in_order(list(jobs.values()))}
    return [name for name in found.values() if not name.startswith(("trace", "try it"))]


def test_each_form_of_a_graph_is_cut_once() -> None:
    wanted = plans("w8a16", "fp16", target="snapdragon", chips=["sm8550", "sm8650"])
    names = job_names(wanted, 2)
    assert (names.count("split net"), names.count("split net for fp16")) == (1, 1)
    assert names.count("finish net part 1 of 2 for fp16") == 1
    assert names.count("quantise net part 1 of 2") == 1


def test_jobs_of_a_cut_component_name_it_and_the_part() -> None:
    assert job_names(plans("w8a16", target="snapdragon", chips=["sm8650"]), 2) == [
        "split net",
        "run net in parts",
        "quantise net part 1 of 2",
        "compile net part 1 of 2 w8a16 for sm8650",  # as soon as it can
        "quantise net part 2 of 2",
        "compile net part 2 of 2 w8a16 for sm8650",
        "stitch net w8a16 for sm8650",
    ]


def test_float32_is_kept_whole_for_onnx() -> None:
    assert job_names(plans("fp32"), 3) == ["finish net fp32"]
    names = job_names(plans("fp32", "fp16", "w8a16"), 2)
    assert names[:4] == [
        "finish net fp32",
        "split net for CPUs",
        "finish net part 1 of 2 fp16",
        "finish net part 2 of 2 fp16",
    ]
    assert [name for name in names if "join" in name] == ["join net fp16", "join net w8a16"]


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("precisions", [("fp16",), ("w8a16",), ("w8a16", "fp16")])
@pytest.mark.parametrize("chips", [("sm8650",), ("sm8550", "sm8650", "sm8750")])
def test_jobs_are_counted(
    parts: int, precisions: tuple[Precision, ...], chips: tuple[str, ...]
) -> None:
    names = job_names(plans(*precisions, target="snapdragon", chips=chips), parts)
    assert len(set(names)) == len(names)
    assert len([name for name in names if name.startswith("compile")]) == (
        parts * len(precisions) * len(chips)
    )


def cut_network(folder: Path, parts: int) -> list[Part]:
    folder.mkdir(exist_ok=True)
    return split_model(
        write_network(folder / "whole.onnx"), folder, parts=parts, most_bytes=1 << 20
    )


def test_parts_are_fed_with_what_earlier_ones_give(tmp_path: Path) -> None:
    parts = cut_network(tmp_path, 3)
    calls = [{name: value.astype(np.float32) for name, value in x.items()} for x in make_calls(2)]
    evaluate_parts(parts, calls, tmp_path)
    feeds = [PartFeeds(parts, index, calls, tmp_path) for index in range(3)]
    assert [len(feed) for feed in feeds] == [2, 2, 2]
    for feed, part in zip(feeds, parts, strict=True):
        assert [set(x) for x in feed] == [set(part.inputs)] * 2
    for number, call in enumerate(calls):
        whole = run_model(tmp_path / "whole.onnx", call)["frames"]
        found = run_model(parts[-1].path, feeds[-1][number])["frames"]
        assert found == pytest.approx(whole, abs=1e-6)
    assert [set(x) for x in feeds[1][:1]] == [set(parts[1].inputs)]


def test_joined_parts_are_the_whole(tmp_path: Path) -> None:
    parts = cut_network(tmp_path / "parts", 3)
    target = tmp_path / "joined.onnx"
    join_models([part.path for part in parts], target, outputs=["frames"])
    onnx.checker.check_model(str(target), full_check=True)
    graph = onnx.load(target).graph
    assert {value.name for value in graph.input} == {"x", "image"}
    assert [value.name for value in graph.output] == ["frames"]
    call = {name: value.astype(np.float32) for name, value in make_calls(1)[0].items()}
    assert run_model(target, call)["frames"] == pytest.approx(
        run_model(tmp_path / "parts" / "whole.onnx", call)["frames"], abs=1e-6
    )


def test_parts_that_disagree_are_not_joined(tmp_path: Path) -> None:
    first, second = (part.path for part in cut_network(tmp_path, 2))
    model = onnx.load(second)
    crossing = next(x for x in model.graph.input if x.name not in ("x", "image"))
    crossing.type.tensor_type.elem_type = TensorProto.UINT16
    onnx.save(model, second)
    with pytest.raises(ExportError, match=r"part_1.onnx cannot be joined: it takes .* as uint16"):
        join_models([first, second], tmp_path / "joined.onnx", outputs=["frames"])


def border_of(made: Made[Artefact], side: str) -> dict[str, tuple[Any, ...]]:
    return {
        row["name"]: (row["dtype"], tuple(row["shape"]), row["scale"], row["zero_point"])
        for row in made.result[side]
    }


@pytest.mark.parametrize("parts", [2, 3])
def test_model_that_was_quantised_in_parts_has_the_borders_and_results_of_the_whole(
    lowered: Lowered, parts: int
) -> None:
    (plan,) = plans("w8a16")
    cut, whole = lowered((plan,), parts)[plan.id], lowered((plan,), 1)[plan.id]
    for side in ("inputs", "outputs"):
        assert border_of(cut, side) == border_of(whole, side)
    assert border_of(cut, "inputs")["image"][0] == "uint8"
    _, _, scale, zero_point = border_of(cut, "inputs")["x"]
    for call in make_calls(3):
        steps = np.rint(call["x"] / np.float32(scale)) + zero_point
        values = {**call, "x": np.clip(steps, 0, 65535).astype(np.uint16)}
        found, wanted = (run_model(x.folder / MODEL, values)["frames"] for x in (cut, whole))
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - wanted).max() <= 2


def test_float16_parts_hand_over_float16_and_take_and_give_what_the_whole_does(
    lowered: Lowered,
) -> None:
    (plan,) = plans("fp16")
    cut, whole = lowered((plan,), 3)[plan.id], lowered((plan,), 1)[plan.id]
    assert border_of(cut, "inputs") == border_of(whole, "inputs")
    for call in make_calls(3):
        found, wanted = (run_model(x.folder / MODEL, call)["frames"] for x in (cut, whole))
        assert np.abs(found.astype(int) - wanted).max() <= 1
    inner = {
        x.name: x.type.tensor_type.elem_type
        for x in onnx.load(cut.folder / MODEL).graph.value_info
        if "/" not in x.name
    }
    assert set(inner.values()) == {TensorProto.FLOAT16}


@pytest.mark.qnn
@pytest.mark.parametrize("precision", ["w8a16", "fp16"])
def test_compiled_parts_are_stitched(lowered: Lowered, precision: Precision) -> None:
    pytest.importorskip("onnxruntime_qnn")
    (plan,) = plans(precision, target="snapdragon", chips=["sm8650"])
    made = lowered((plan,), 2)[plan.id]
    delegation = made.result["delegation"]
    assert (delegation["delegated"], delegation["non_delegated"]) == (2, [])
    files = sorted(x.name for x in made.folder.iterdir() if x.suffix in (".onnx", ".bin"))
    assert files == ["model_ctx.onnx", "model_ctx_0.bin", "model_ctx_1.bin"]
    graph = onnx.load(made.folder / CONTEXT).graph
    crossing = {x.type.tensor_type.elem_type for x in graph.value_info}
    wanted = TensorProto.UINT16 if precision == "w8a16" else TensorProto.FLOAT16
    assert crossing == {wanted}
    kinds = {"x": "uint16" if precision == "w8a16" else "float32", "image": "uint8"}
    assert {name: row[0] for name, row in border_of(made, "inputs").items()} == kinds


def test_network_that_does_not_use_an_input_cannot_be_cut(lowered: Lowered) -> None:
    model = onnx.load(lowered.traced / MODEL)
    model.graph.input.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, (1,)))
    onnx.save(model, lowered.traced / MODEL)
    component = replace(
        NETWORK,
        inputs=(*NETWORK.inputs, TensorRecipe(name="unused", shape=(1,), dtype="float32")),
    )
    with pytest.raises(ExportError, match="'unused' is among the inputs of no part"):
        lowered(plans("fp16"), 2, component)


def animation_request(
    folder: Path, out: Path, *precisions: Precision, target: Target, one_step: bool = True
) -> ExportRequest:
    """Return a request for the tiny image-to-video model, its denoiser in three parts."""
    model = write_tiny_animator_folder(folder, one_step=one_step)
    request = ExportRequest(
        folder=model,
        variants=plan_variants(target, precisions, chips=(find_chipset("sm8650"),)),
        num_frames=4,
        height=64,
        width=64,
        steps=(1,) if one_step else (2,),
        guidance=None if one_step else (1.0, 3.0),
        out=out,
    )
    sizes = {item.component: item.weight_bytes["fp32"] for item in plan_export(request).costs}
    return replace(request, part_bytes=-(-sizes["unet"] // 3))


def test_only_components_above_the_limit_are_cut(tmp_path: Path) -> None:
    request = animation_request(tmp_path / "m", tmp_path / "out", "w8a16", target="snapdragon")
    plan = plan_export(request)
    counts = {x.component.name: x.parts for x in plan.lowerings}
    assert counts == {"image_encoder": 1, "vae_encoder": 1, "unet": 3, "vae_decoder": 1}
    whole = plan_export(replace(request, part_bytes=1 << 30))
    assert {x.parts for x in whole.lowerings} == {1}
    # split, run in parts, stitch, and two more of quantise and compile
    assert len(plan.names) == len(whole.names) + 3 + 2 * 2


def export_in_parts(request: ExportRequest, cache: Path) -> mvsdk.Manifest:
    told: list[Progress] = []
    plan = plan_export(request)
    with JobRunner(cache) as runner:
        report = export(plan, runner, told.append)
    ended = [progress.stage for progress in told if progress.state != "running"]
    assert sorted(ended) == sorted(plan.names)
    manifest = report.bundle.manifest
    assert manifest.verification
    assert all(record.passed for record in manifest.verification)
    return manifest


@pytest.mark.slow
@pytest.mark.exhaustive
def test_onnx_bundle_of_a_model_in_parts_is_verified(
    tmp_path: Path, in_process: None, toolchain: Toolchain
) -> None:
    """Two evaluations with guidance in one graph, which share their weights."""
    del in_process
    request = animation_request(
        tmp_path / "m", tmp_path / "o", "fp32", "fp16", target="onnx", one_step=False
    )
    manifest = export_in_parts(request, toolchain.cache / "export")
    variants = manifest.components["unet"].variants
    assert [variant.id for variant in variants] == ["onnx-fp32", "onnx-fp16"]
    assert len({variant.inputs for variant in variants}) == 1


@pytest.mark.slow
@pytest.mark.qnn
@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["w8a16", "fp16"])
def test_compiled_bundle_of_a_model_in_parts_is_verified_on_the_emulator(
    tmp_path: Path, in_process: None, toolchain: Toolchain, precision: Precision
) -> None:
    pytest.importorskip("onnxruntime_qnn")
    del in_process
    request = animation_request(tmp_path / "m", tmp_path / "o", precision, target="snapdragon")
    manifest = export_in_parts(request, toolchain.cache / "export")
    found = {
        name: variant.delegation
        for name, part in manifest.components.items()
        for variant in part.variants
    }
    counts = {
        name: (x.delegated, len(x.non_delegated)) for name, x in found.items() if x is not None
    }
    assert counts == {
        "image_encoder": (1, 0),
        "vae_encoder": (1, 0),
        "unet": (3, 0),
        "vae_decoder": (1, 0),
    }
    (unet,) = manifest.components["unet"].variants
    assert sorted(Path(ref.path).name for ref in unet.files) == [
        "model_ctx.onnx",
        *(f"model_ctx_{index}.bin" for index in range(3)),
    ]
