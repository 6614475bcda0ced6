"""The Chinese names of the classes, and the page for readers of Chinese."""

import re

import pytest

from cifar100 import chinese
from cifar100.languages import NAMES, check_language, translated
from cifar100.running.errors import PipelineError
from tests.conftest import ROOT

# The classes of CIFAR-100 by superclass, as its page lists them.
CLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}


def test_every_class_and_superclass_has_a_name():
    assert set(chinese.FINE) == set(" ".join(CLASSES.values()).split())
    assert set(chinese.COARSE) == set(CLASSES)
    assert (len(chinese.FINE), len(chinese.COARSE)) == (100, 20)


def test_names_are_chinese_and_none_is_there_twice():
    names = [*chinese.FINE.values(), *chinese.COARSE.values()]
    assert len(set(names)) == 120
    assert all(re.fullmatch("[\u4e00-\u9fff]+", name) for name in names)


def test_predictions_are_translated():
    predictions = [{"class": "ray", "superclass": "fish", "probability": 0.5}]
    assert translated(predictions, "en") == predictions
    assert translated(predictions, "zh") == [
        {"class": "鳐鱼", "superclass": "鱼类", "probability": 0.5}
    ]


def test_other_classes_than_those_of_the_data_set_are_refused():
    other = [{"class": "red disc on bars", "superclass": "red on bars", "probability": 1.0}]
    with pytest.raises(PipelineError, match="zh: has no name for red disc on bars"):
        translated(other, "zh")


def test_language_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(PipelineError, match=r"--language fr: .*en, zh$"):
        check_language("fr", "utf-8")
    for language in NAMES:
        check_language(language, "utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "gb2312"])
def test_output_that_cannot_hold_the_names_is_refused(encoding):
    """gb2312 lacks a letter of 鼩鼱."""
    with pytest.raises(PipelineError, match=f"zh: the output is in {encoding}"):
        check_language("zh", encoding)
    check_language("en", encoding)
    check_language("zh", "gbk")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_numbers_of_the_chinese_page_are_those_of_the_english_one():
    english = set(re.findall(r"\d[\d.,]*\d|\d", text_of("README.md")))
    chinese_page = re.sub(
        r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text_of("README.zh-CN.md"), flags=re.S
    )
    found = set(re.findall(r"\d[\d.,]*\d|\d", chinese_page))
    assert len(found) > 10
    assert found <= english


def test_commands_of_the_chinese_page_are_those_of_the_english_one():
    def commands(name: str) -> set[str]:
        lines = re.findall(r"(?m)^\$ (.*)$", text_of(name))
        return {line.split("#")[0].strip() for line in lines}

    found = commands("README.zh-CN.md")
    assert {"make demo", "make repro"} <= found
    only_here = {line for line in found if re.search("--language|--why|activate", line)}
    inline = set(re.findall(r"`(\w[^`]+)`", text_of("README.md")))
    assert found - only_here <= commands("README.md") | inline


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_links_lead_to_files(name):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(name))
    local = [link for link in links if not link.startswith("http")]
    assert len(local) >= 5
    assert [link for link in local if not (ROOT / link).exists()] == []
