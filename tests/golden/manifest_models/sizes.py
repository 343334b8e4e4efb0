"""The golden manifest of one model in two sizes."""

from __future__ import annotations

from dataclasses import replace

from manifest_models.parts import (
    COREML_W8,
    ONNX_FP32,
    graph,
    licences,
    pixels,
    real,
    ref,
    run,
    sampler,
    sets_of,
    source,
    tokenizer,
    whole,
)
from mvsdk.manifest import Component, Manifest, Program, Variant, VideoSpec
from mvsdk.manifest.usual import UsualModel, usual_program


def several_sizes() -> Manifest:
    """One model in two sizes: two functions of a package, and two graphs elsewhere."""
    kinds = (ONNX_FP32, COREML_W8)
    hidden = real("encoder_hidden_states", 1, 16, 128)
    components: dict[str, Component] = {
        "text_encoder": graph("text_encoder", [whole("input_ids", 1, 16)], [hidden], kinds)
    }
    programs: list[Program] = []
    for width, height in ((96, 64), (64, 96)):
        size, shape = f"{width}x{height}", (8, 16, height // 8, width // 8)
        denoiser, decoder = f"unet.{size}", f"vae_decoder.{size}"
        components[denoiser] = graph(
            denoiser,
            [real("sample", *shape), hidden],
            [real("model_output", *shape)],
            kinds,
            role="denoiser",
            function=f"size_{size}",
            package="unet",
        )
        components[decoder] = graph(
            decoder,
            [real("latents", *shape)],
            [pixels("frames", 8, height, width, 3)],
            kinds,
            role="vae_decoder",
            function=f"size_{size}",
            package="vae_decoder",
        )
        components[denoiser] = _on_its_own(denoiser, components[denoiser])
        components[decoder] = _on_its_own(decoder, components[decoder])
        usual = usual_program(
            UsualModel(
                task="text_to_video",
                video=VideoSpec(frames=8, height=height, width=width, fps=8.0),
                latents=shape,
                denoiser=denoiser,
                denoiser_inputs=("sample", "encoder_hidden_states"),
                decode_frames=8,
            )
        )
        operations = list(usual.operations)
        operations[-1] = run(decoder, {"latents": "latents"}, {"frames": "frames"})
        programs.append(replace(usual, name=size, operations=tuple(operations)))
    return Manifest(
        name="several-sizes",
        programs=tuple(programs),
        components=components,
        sets=sets_of(components, *kinds),
        samplers={"main": sampler("flow_euler", "sample", {1: ((1.0, 0.0), (1.0,))})},
        tokenizers={"main": tokenizer("wordpiece", "tokenizer/vocab.json", 16, "refuse")},
        source=source("several sizes"),
        licences=licences(),
    )


def _on_its_own(name: str, component: Component) -> Component:
    """Give each size a graph of its own where a package does not hold both."""
    return replace(component, variants=tuple(_moved(name, item) for item in component.variants))


def _moved(name: str, variant: Variant) -> Variant:
    if variant.function is not None:
        return variant
    folder = variant.model.rpartition("/")[0]
    path = f"{folder}/{name.partition('.')[2]}.onnx"
    return replace(variant, model=path, files=(ref(path), ref(f"{folder}/weights.bin")))
