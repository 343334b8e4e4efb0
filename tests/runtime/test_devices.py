"""The chip table holds what the compilers need, and finds chips by any of their names."""

from __future__ import annotations

import pytest

from mvsdk.devices import (
    CHIPSETS,
    DEFAULT_CHIPSETS,
    HTP_PROCESS_LIMIT_BYTES,
    chip_note,
    find_chipset,
)
from mvsdk.errors import InputError
from mvsdk.manifest import Chip


def test_default_chips_are_the_four_tested_ones_rising() -> None:
    known = [(chip.slug, chip.soc_model, chip.htp_arch) for chip in DEFAULT_CHIPSETS]
    assert known == [
        ("sm8550", 43, 73),
        ("sm8650", 57, 75),
        ("sm8750", 69, 79),
        ("sm8850", 87, 81),
    ]
    assert all(chip.tested and chip.ai_hub_chipset and chip.phones for chip in DEFAULT_CHIPSETS)


def test_other_chips_are_known_but_not_tested() -> None:
    others = {c.slug: (c.soc_model, c.htp_arch, c.vtcm_mib) for c in CHIPSETS if not c.tested}
    assert others == {
        "sm8450": (36, 69, 8),
        "sm8475": (42, 69, 8),
        "sm8845": (97, 81, 8),
        "qcm6490": (93, 68, 2),
    }


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("sm8650", "sm8650"),
        ("SM8650", "sm8650"),
        ("Snapdragon 8 Gen 3", "sm8650"),
        ("8 gen 3", "sm8650"),
        ("8gen3", "sm8650"),
        ("Snapdragon 8 Gen 3 for Galaxy", "sm8650"),
        ("qualcomm-snapdragon-8gen2", "sm8550"),
        ("Qualcomm Snapdragon 8 Elite", "sm8750"),
        ("snapdragon-8-elite-gen5", "sm8850"),
        ("Snapdragon 8 Gen 5", "sm8845"),
        ("Snapdragon 8 Gen 1", "sm8450"),
        ("Snapdragon 8+ Gen 1", "sm8475"),
        ("qcs6490", "qcm6490"),
    ],
)
def test_chip_is_found_by_slug_and_marketing_name(name: str, slug: str) -> None:
    assert find_chipset(name).slug == slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("s24", "sm8650"),
        ("galaxy s24 ultra", "sm8650"),
        ("Samsung Galaxy S24 (Family)", "sm8650"),
        ("s24 plus", "sm8650"),
        ("S24+", "sm8650"),
        ("xiaomi 14", "sm8650"),
        ("OnePlus 12", "sm8650"),
        ("one plus 12", "sm8650"),
        ("rog phone 8", "sm8650"),
        ("z fold6", "sm8650"),
        ("Galaxy Z Flip 5", "sm8550"),
        ("Samsung Galaxy S22 Ultra 5G", "sm8450"),
        ("OnePlus 15R", "sm8845"),
        ("OnePlus 15", "sm8850"),
        ("8 plus gen 1", "sm8475"),
    ],
)
def test_chip_is_found_by_a_phone_that_carries_it(name: str, slug: str) -> None:
    assert find_chipset(name).slug == slug


@pytest.mark.parametrize(
    ("name", "other"),
    [("s24", "Exynos 2400"), ("galaxy s26+", "Exynos 2600"), ("S22 Ultra", "Exynos 2200")],
)
def test_a_phone_with_another_chip_in_some_countries_has_a_note(name: str, other: str) -> None:
    note = chip_note(name)
    assert note is not None
    assert other in note
    assert find_chipset(name).slug in note
    assert len(note.splitlines()) == 1


@pytest.mark.parametrize("name", ["s24 ultra", "sm8650", "xiaomi 14", "8 gen 3", "nothing", ""])
def test_other_names_have_no_note(name: str) -> None:
    assert chip_note(name) is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("iPhone 15", "an iPhone has no Snapdragon, --target iphone is for it"),
        ("Exynos 2400", "--target executorch runs on any phone's CPU"),
        ("pixel 9", "--target executorch runs on any phone's CPU"),
        ("galaxy s24 ulta", "did you mean sm8650 (Samsung Galaxy S24 Ultra)?"),
    ],
)
def test_phones_without_such_a_chip_say_what_to_do(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        find_chipset(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["s24 fe", "oneplus 9", "iqoo 9", "galaxy", "s21"])
def test_a_phone_that_is_not_known_is_not_taken_for_another(name: str) -> None:
    with pytest.raises(InputError) as caught:
        find_chipset(name)
    assert "did you mean" not in str(caught.value)


def test_every_spelling_means_one_chip() -> None:
    for chip in CHIPSETS:
        spellings = [chip.slug, chip.slug.upper(), *chip.names, chip.ai_hub_chipset or chip.slug]
        spellings += [*chip.phones, *chip.other_chips]
        assert {find_chipset(name).slug for name in spellings} == {chip.slug}


@pytest.mark.parametrize(
    ("name", "hint"),
    [("sm8651", "did you mean sm8650?"), ("snapdragon 8 gen 33", "did you mean sm8650?")],
)
def test_near_miss_is_suggested(name: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        find_chipset(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", "snapdragon", "exynos", "a\nb", "x" * 100_000, "火"])
def test_unknown_chip_is_refused_in_one_line_that_names_the_known(name: str) -> None:
    with pytest.raises(InputError) as caught:
        find_chipset(name)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 300
    assert "known: sm8550, sm8650, sm8750, sm8850, sm8450" in message
    assert "mvsdk devices" in message


def test_chips_can_be_put_into_a_set() -> None:
    assert len({*CHIPSETS, find_chipset("s24"), find_chipset("sm8650")}) == len(CHIPSETS)


def test_chip_predicate_is_what_a_manifest_holds() -> None:
    assert find_chipset("sm8750").chip == Chip(slug="sm8750", htp_arch=79, soc_model=69)


def test_process_limit_is_three_and_a_half_gigabytes() -> None:
    assert HTP_PROCESS_LIMIT_BYTES == 3_500_000_000
