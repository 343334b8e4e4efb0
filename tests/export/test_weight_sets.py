"""Which files of a folder are its weights: one set of them, and nothing that only lies beside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from damage import TRANSFORMER, pickle_instead, refused, shard  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_svd import INDEX, UNET, quiet  # noqa: E402

from mvsdk_export.checkpoints import open_decoder, open_model  # noqa: E402
from mvsdk_export.families import find_recipe  # noqa: E402

STEM = UNET.removesuffix(".safetensors")
PLAIN_INDEX = f"{UNET}.index.json"
VARIANT = f"{STEM}.fp16.safetensors"
VARIANT_INDICES = (
    f"{UNET}.index.fp16.json",
    f"{UNET}.fp16.index.json",
    f"{VARIANT}.index.json",
)
BIAS = "conv_in.bias"


def _save_shards(folder: Path, index: str = PLAIN_INDEX, prefix: str = "part") -> None:
    """Write the weights of the plain file as two shards and an index beside it."""
    names = sorted(weights := load_file(folder / UNET))
    parts = {f"{prefix}-1.safetensors": names[::2], f"{prefix}-2.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: weights[name] for name in held}, (folder / UNET).with_name(part))
    weight_map = {name: part for part, held in parts.items() for name in held}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _variant_and_its_shards(folder: Path) -> None:
    _save_shards(folder, VARIANT_INDICES[0])
    (folder / UNET).rename(folder / VARIANT)


def _two_indices(folder: Path) -> None:
    _save_shards(folder, VARIANT_INDICES[0], "old")
    _save_shards(folder, VARIANT_INDICES[2], "new")
    (folder / UNET).unlink()


def _two_variants(folder: Path) -> None:
    shutil.copyfile(folder / UNET, folder / VARIANT)
    (folder / UNET).rename(folder / f"{STEM}.bf16.safetensors")


def _shards_without_their_index(folder: Path) -> None:
    shutil.copyfile(folder / UNET, folder / f"{STEM}-00001-of-00002.safetensors")


def _one_shard_of_two(folder: Path) -> None:
    _save_shards(folder)
    (folder / "unet/part-1.safetensors").unlink()


AMBIGUOUS: dict[str, tuple[Callable[[Path], object], tuple[str, str]]] = {
    "file and shards": (_save_shards, (UNET, PLAIN_INDEX)),
    "file and some of its shards": (_one_shard_of_two, (UNET, PLAIN_INDEX)),
    "file and shards of no index": (
        _shards_without_their_index,
        (UNET, f"{STEM}-00001-of-00002.safetensors"),
    ),
    "variant and its shards": (_variant_and_its_shards, (VARIANT, VARIANT_INDICES[0])),
    "two indices": (_two_indices, (VARIANT_INDICES[0], VARIANT_INDICES[2])),
    "two variants": (_two_variants, (VARIANT, f"{STEM}.bf16.safetensors")),
}


@pytest.mark.parametrize(("change", "both"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_two_sets_of_weights_are_refused_by_their_names(
    svd_copy: Path, change: Callable[[Path], object], both: tuple[str, str]
) -> None:
    change(svd_copy)
    with refused("holds two sets of weights of one network, .*; remove the older one") as caught:
        open_model(svd_copy)
    for name in both:
        assert repr(name) in str(caught.value)


def test_weights_that_diffusers_saved_again_in_shards_are_not_read_from_the_old_file(
    svd_copy: Path,
) -> None:
    with quiet():
        from diffusers import UNetSpatioTemporalConditionModel

        unet = UNetSpatioTemporalConditionModel.from_pretrained(svd_copy / "unet")
        with torch.no_grad():
            unet.conv_in.bias.mul_(2)
        unet.save_pretrained(svd_copy / "unet", max_shard_size="5MB")
    with refused("holds two sets of weights of one network"):
        open_model(svd_copy)
    (svd_copy / UNET).unlink()
    assert torch.equal(open_model(svd_copy).load("unet").state_dict()[BIAS], unet.conv_in.bias)


def test_a_model_folder_of_ours_has_one_set_too(model_copy: Path) -> None:
    kept = model_copy.parent / "kept.safetensors"
    shutil.copyfile(model_copy / TRANSFORMER, kept)
    shard(model_copy)
    open_model(model_copy)
    kept.rename(model_copy / TRANSFORMER)
    with refused("holds two sets of weights of one network, 'transformer/"):
        open_model(model_copy)


def test_a_light_decoder_has_one_set_too(tmp_path: Path) -> None:
    with quiet():
        from diffusers import AutoencoderTiny

        AutoencoderTiny().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    decoder = open_decoder(tmp_path, find_recipe("mobilevd"))
    assert decoder.find_weights().files == (file,)
    shutil.copyfile(file, tmp_path / "diffusion_pytorch_model-00001-of-00001.safetensors")
    with refused("holds two sets of weights of one network, 'diffusion_pytorch_model"):
        decoder.find_weights()


def test_an_index_without_its_shards_is_harmless(svd_copy: Path) -> None:
    _save_shards(svd_copy)
    for shard_file in (svd_copy / "unet").glob("part-*"):
        shard_file.unlink()
    assert open_model(svd_copy).weights["unet"].files == (svd_copy / UNET,)
    # As where only one variant was downloaded, with all JSON files.
    (svd_copy / UNET).rename(svd_copy / VARIANT)
    assert open_model(svd_copy).weights["unet"].files == (svd_copy / VARIANT,)


def test_one_set_under_two_spellings_of_its_index_is_read(svd_copy: Path) -> None:
    for index in VARIANT_INDICES:
        _save_shards(svd_copy, index)
    (svd_copy / UNET).unlink()
    folder = open_model(svd_copy)
    assert folder.weights["unet"].index == svd_copy / VARIANT_INDICES[0]
    folder.load("unet")


def test_plain_shards_are_preferred_to_a_variant(svd_copy: Path) -> None:
    _save_shards(svd_copy)
    (svd_copy / UNET).unlink()
    (svd_copy / VARIANT).write_bytes(b"not read")
    assert open_model(svd_copy).weights["unet"].index == svd_copy / PLAIN_INDEX


@pytest.mark.parametrize("sharded", [False, True])
def test_bfloat16_variants_are_read(tiny_svd_folder: Path, tmp_path: Path, sharded: bool) -> None:
    size = {"max_shard_size": "5MB"} if sharded else {}
    folder = Path(shutil.copytree(tiny_svd_folder, tmp_path / "svd"))
    (folder / UNET).unlink()
    with quiet():
        from diffusers import UNetSpatioTemporalConditionModel

        unet = UNetSpatioTemporalConditionModel.from_pretrained(tiny_svd_folder / "unet")
        unet.to(torch.bfloat16).save_pretrained(folder / "unet", variant="bf16", **size)
    model = open_model(folder)
    assert len(model.weights["unet"].files) == (2 if sharded else 1)
    for name, value in model.load("unet").state_dict().items():
        assert torch.equal(value, unet.state_dict()[name].float())


FOREIGN = (
    *("._diffusion_pytorch_model.safetensors", "._diffusion_pytorch_model.bin", "._config.json"),
    *("._diffusion_pytorch_model.safetensors.index.json", ".DS_Store", "Thumbs.db"),
    *("desktop.ini", ".cache/huggingface/download/x.lock", ".gitattributes"),
    "._diffusion_pytorch_model-00001-of-00002.safetensors",
)


def _litter(folder: Path) -> None:
    """Put beside every file what systems and tools put there."""
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for name in FOREIGN:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")


def test_files_of_systems_and_tools_are_not_read(svd_copy: Path) -> None:
    before = open_model(svd_copy)
    _litter(svd_copy)
    after = open_model(svd_copy)
    assert after.weights == before.weights
    assert after.files_with_hashes() == before.files_with_hashes()
    after.check()


def test_files_of_systems_and_tools_beside_shards_are_not_read(svd_copy: Path) -> None:
    shard(svd_copy, UNET)
    _litter(svd_copy)
    open_model(svd_copy).load("unet")


def test_hidden_files_make_no_folder_a_pickle(svd_copy: Path) -> None:
    (svd_copy / UNET).unlink()
    _litter(svd_copy)
    with refused(f"lacks {UNET}; download or make it again"):
        open_model(svd_copy)


def test_the_pickle_that_holds_the_weights_is_named(svd_copy: Path) -> None:
    pickle_instead(svd_copy, UNET)
    (svd_copy / "unet/a_state.pkl").touch()
    with refused(r"unet/diffusion_pytorch_model\.bin' is a pickle"):
        open_model(svd_copy)


def _to_cache(folder: Path, cache: Path) -> Path:
    """Move a folder into a cache as the hub's client lays it out; return the snapshot."""
    model = cache / "models--org--svd"
    snapshot = model / "snapshots" / ("ab" * 20)
    (model / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        blob = model / "blobs" / f"{number:064x}"
        shutil.move(file, blob)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(link.relative_to(model).parts) - 1)
        link.symlink_to(f"{up}blobs/{blob.name}")
    return snapshot


def test_a_snapshot_in_the_cache_of_the_hub_is_read(svd_copy: Path, tmp_path: Path) -> None:
    want = open_model(svd_copy).files_with_hashes()
    snapshot = _to_cache(svd_copy, tmp_path / "hub")
    (tmp_path / "linked").symlink_to(tmp_path / "hub")
    for path in (snapshot, tmp_path / "linked" / snapshot.relative_to(tmp_path / "hub")):
        folder = open_model(path)
        assert folder.files_with_hashes() == want
        folder.load("unet")


@pytest.mark.parametrize(
    "target",
    [
        "models--org--other/blobs/" + "0" * 64,
        "models--org--svd/refs/" + "0" * 64,
        "models--org--svd/blobs/inside/" + "0" * 64,
        "models--org--svd/blobs/name",
        "secret",
    ],
)
def test_other_links_out_of_a_snapshot_are_refused(
    svd_copy: Path, tmp_path: Path, target: str
) -> None:
    snapshot = _to_cache(svd_copy, tmp_path / "hub")
    place = tmp_path / "hub" / target
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(snapshot / INDEX, place)
    (snapshot / INDEX).unlink()
    (snapshot / INDEX).symlink_to(place)
    with refused("model_index.json of model folder .* is a link out of the folder"):
        open_model(snapshot)


def test_a_blob_that_leads_out_of_the_cache_is_refused(svd_copy: Path, tmp_path: Path) -> None:
    snapshot = _to_cache(svd_copy, tmp_path / "hub")
    blob = (snapshot / INDEX).resolve()
    shutil.move(blob, tmp_path / blob.name)
    blob.symlink_to(tmp_path / blob.name)
    with refused("is a link out of the folder"):
        open_model(snapshot)


def test_blobs_beside_a_folder_that_is_no_snapshot_are_outside(
    svd_copy: Path, tmp_path: Path
) -> None:
    snapshot = _to_cache(svd_copy, tmp_path / "hub")
    model = snapshot.parents[1]
    model.rename(model.with_name("datasets--org--svd"))
    with refused("is a link out of the folder"):
        open_model(model.with_name("datasets--org--svd") / "snapshots" / snapshot.name)
