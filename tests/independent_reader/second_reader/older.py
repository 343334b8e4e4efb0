"""Versions 1 and 2 of a manifest brought to version 3 (section 10)."""

from typing import Any

from .document import Parts, need
from .tensors import float32

NEEDS = {"text_to_video": ["text_encoder"], "image_to_video": ["image_encoder", "vae_encoder"]}
UNSCALED = ("float32", "float16", "int64")
KEPT = ("format", "name", "source", "licences")


def upgrade(old: Parts) -> Parts:
    """The document of version 3 that an older one, whose shape is right, becomes."""
    found, sampler, tokenizer = old["components"], old["sampler"], old["tokenizer"]
    head = "unet" if "unet" in found else "transformer"
    names = sorted([*NEEDS[old["task"]], head, "vae_decoder"])
    components = {name: take_component(name, found[name]["variants"]) for name in names}
    dropped = found.keys() - components.keys()
    sets = make_sets(components)
    for steps, schedule in sampler["schedules"].items():
        at = f"sampler.schedules.{steps}.sigmas[{steps}]"
        need(float32(schedule["sigmas"][-1]) == 0, "S2", at)
    if tokenizer:
        kept = {name: tokenizer[name] for name in ("kind", "file", "max_length")}
        tokenizer = {"main": kept | {"too_long": "refuse"}}
    new = {name: old[name] for name in old if name in KEPT or name.startswith("x-")}
    return new | {
        "format_version": 3,
        "programs": [make_program(old, components, head)],
        "components": components,
        "sets": sets,
        "samplers": {"main": without(sampler, "conditioning") | {"adjustable": True}},
        "tokenizers": tokenizer or {},
        "tables": {},
        "packs": [],
        "costs": without(old["costs"], *dropped),
        "verification": take_records(old["verification"], sets, dropped),
    }


def without(parts: Parts, *names: str) -> Parts:
    """A copy without some keys."""
    return {name: value for name, value in parts.items() if name not in names}


def take_component(name: str, variants: list[Parts]) -> Parts:
    """A component, whose tensors are those of its first variant (G1)."""
    new: Parts = {"role": "denoiser" if name in ("unet", "transformer") else name}
    for side in ("inputs", "outputs"):
        first = {tensor["name"]: tensor["shape"] for tensor in variants[0][side]}
        for i, variant in enumerate(variants):
            same = {tensor["name"]: tensor["shape"] for tensor in variant[side]} == first
            whole = same and len(variant[side]) == len(first)
            need(whole, "G1", f"components.{name}.variants[{i}].{side}")
        new[side] = [{"name": n, "shape": s, "type": type_of(name, n)} for n, s in first.items()]
    at = f"components.{name}.variants"
    made = [take_variant(name, variant, f"{at}[{i}]") for i, variant in enumerate(variants)]
    return new | {"variants": made}


def type_of(component: str, tensor: str) -> str:
    """The type of a tensor."""
    pixels = (("image_encoder", "image"), ("vae_encoder", "image"), ("vae_decoder", "frames"))
    integer = "integer" if tensor == "input_ids" else "real"
    return "pixels" if (component, tensor) in pixels else integer


def take_variant(component: str, variant: Parts, at: str) -> Parts:
    """A variant."""
    form = "qnn_context" if variant["target"] == "snapdragon" else "onnx"
    new = {"format": form, "delegate": None, "deployment_target": None, "function": None}
    new |= without(variant, "residency") | {"pack": None, "requires": {}, "delegation": None}
    if residency := variant["residency"]:
        left = residency["left_outside"]
        need(residency["cpu_nodes"] == len(left), "D10", f"{at}.residency.cpu_nodes")
        counts = {"delegated": residency["npu_nodes"], "non_delegated": left}
        new["delegation"] = counts | {"basis": residency.get("basis", "compiler")}
    for side in ("inputs", "outputs"):
        new[side] = [without(tensor, "shape") for tensor in variant[side]]
        for tensor in new[side]:
            real = type_of(component, tensor["name"]) == "real"
            plain = tensor["scale"] is None and tensor["zero_point"] is None
            if real and plain and tensor["dtype"] not in UNSCALED:
                tensor |= {"scale": 1, "zero_point": 0}
    return new


def make_sets(components: Parts) -> list[Parts]:
    """A set for each key that all components have."""
    firsts: dict[str, dict[tuple[Any, ...], str]] = {}
    for name, component in components.items():
        firsts[name] = {}
        for variant in component["variants"]:
            key = [variant[k] for k in ("target", "format", "delegate", "precision")]
            slug = variant["chip"] and variant["chip"]["slug"]
            firsts[name].setdefault((*key, slug), variant["id"])
    lead = min(components)
    keys = [key for key in firsts[lead] if all(key in first for first in firsts.values())]
    need(keys, "G11", "components")
    chosen = [{name: first[key] for name, first in firsts.items()} for key in keys]
    return [{"id": variants[lead], "variants": variants} for variants in chosen]


def take_records(records: list[Parts], sets: list[Parts], dropped: Any) -> list[Parts]:
    """The records, but for those of what is dropped, and of no set (R2)."""
    kept: list[Parts] = []
    for record in records:
        name, variant = record["component"], record.get("variant")
        holders = [s["id"] for s in sets if variant in s["variants"].values()]
        if name == "end_to_end" and holders:
            kept.append(record | {"variant": holders[0]})
        elif name not in dropped and (name != "end_to_end" or not isinstance(variant, str)):
            kept.append(record)
    return kept


def run(component: str, inputs: Parts, output: str, array: str | None = None) -> Parts:
    """The operation that runs a component."""
    outputs = {output: array or output}
    return {"op": "run", "component": component, "inputs": inputs, "outputs": outputs}


def make_program(old: Parts, components: Parts, head: str) -> Parts:
    """The program `default`."""
    picture, given = old["task"] == "image_to_video", old["sampler"]["conditioning"]
    inputs, operations = picture_start(old) if picture else text_start()
    constants = without(given, "added_time_ids") if picture else given
    feeds = {"sample": "model_input", "timestep": "timestep"}
    feeds |= {"encoder_hidden_states": "encoder_hidden_states"}
    feeds |= {name: name for name in ("image_latents", "added_time_ids") if picture}
    takes = [tensor["name"] for tensor in components[head]["inputs"]]
    for i, name in enumerate(sorted(constants), 1):
        need(name in takes, "P11", f"sampler.conditioning.{name}")
        feeds[name] = f"constant_{i}"
        operations.append({"op": "numbers", "values": given[name], "output": feeds[name]})
    need(set(takes) <= feeds.keys(), "P11", f"components.{head}.inputs")
    shape = old["latents"]["shape"]
    names = ("start", "model_input", "timestep", "model_output")
    sample = {"op": "sample", "sampler": "main", "stream": 0, "shared_axis": None, "index": "step"}
    sample |= {name: name for name in names} | {"carried": {}, "output": "latents"}
    sample["operations"] = [run(head, {name: feeds[name] for name in takes}, "model_output")]
    operations += [{"op": "noise", "stream": 0, "shape": shape, "output": "start"}, sample]
    operations.append(make_decoder(old, components["vae_decoder"]))
    program = {"name": "default", "task": old["task"], "video": old["video"], "inputs": inputs}
    return program | {"operations": operations, "output": "frames"}


def text_start() -> tuple[Parts, list[Parts]]:
    """Input and first operations for a text."""
    tokenize = {"op": "tokenize", "input": "prompt", "before": "", "after": "", "tokenizer": "main"}
    tokenize |= {"output": "input_ids", "mask": None}
    encode = run("text_encoder", {"input_ids": "input_ids"}, "encoder_hidden_states")
    return {"prompt": {"kind": "prompt"}}, [tokenize, encode]


def picture_start(old: Parts) -> tuple[Parts, list[Parts]]:
    """Inputs and first operations for a picture."""
    height, width = old["video"]["height"], old["video"]["width"]
    fps, motion, noise = old["sampler"]["conditioning"]["added_time_ids"]
    number = {"kind": "number", "minimum": 0, "whole": False}
    inputs = {
        "picture": {"kind": "picture", "height": height, "width": width},
        "fps": number | {"minimum": 1, "maximum": 60, "default": fps + 1},
        "motion": number | {"maximum": 255, "default": motion, "whole": True},
        "noise_aug_strength": number | {"maximum": 1, "default": noise},
    }
    level = {"input": "noise_aug_strength", "scale": 1, "offset": 0}
    ids = [level | {"input": "fps", "offset": -1}, level | {"input": "motion"}, level]
    shape = [1, 3, height, width]
    fed = {"image": "picture", "noise": "picture_noise", "noise_aug_strength": "noise_level"}
    return inputs, [
        run("image_encoder", {"image": "picture"}, "encoder_hidden_states"),
        {"op": "noise", "stream": 65536, "shape": shape, "output": "picture_noise"},
        {"op": "numbers", "values": [level], "output": "noise_level"},
        run("vae_encoder", fed, "image_latents"),
        {"op": "numbers", "values": ids, "output": "added_time_ids"},
    ]


def make_decoder(old: Parts, decoder: Parts) -> Parts:
    """The operation that makes frames, in parts if the decoder takes a part of the latents."""
    shapes = {tensor["name"]: tensor["shape"] for tensor in decoder["inputs"]}
    size = (shapes.get("latents") or [1])[0]
    parts, rest = divmod(old["latents"]["shape"][0], size)
    good = not rest and old["video"]["frames"] % parts == 0
    need(good, "P5", "components.vae_decoder.latents")
    if parts == 1:
        return run("vae_decoder", {"latents": "latents"}, "frames")
    start = {"start": 0, "steps": {"part": size}}
    take = {"op": "take", "array": "latents", "axis": 0, "start": start, "size": size}
    take |= {"stride": 1, "output": "part_latents"}
    decode = run("vae_decoder", {"latents": "part_latents"}, "frames", "part_frames")
    collect = {"output": "frames", "axis": 0, "overlap": 0, "blend": None}
    loop = {"op": "loop", "count": parts, "index": "part", "carried": {}}
    return loop | {"operations": [take, decode], "collected": {"part_frames": collect}}
