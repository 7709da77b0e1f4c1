"""What the page says about the map: figures with intervals, the control, the lesions, and the worst frames side by side."""

from __future__ import annotations

import html
import re

import pytest
from report_documents import full_document, worst_maps

from edgekit.report import cam, compile_page, gates


def words(section):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", str(section))).replace("\u202f", " ").split())


def test_every_figure_has_its_interval_and_its_control():
    """Five rows, the device's figure with its interval, and beside it each random network's; left-out frames are counted."""
    said = words(cam.map_section(full_document()))
    assert "0.973 0.963 to 0.983" in said
    for column in ("head random, 1", "head random, 2", "all random, 1"):
        assert column in said
    assert "0.661" in said
    assert "\u22120.136" in said
    assert "on 298 frames of 150 groups" in said
    assert "2 frames on which neither map has any structure left out" in said
    assert "3.1 × 10⁻⁵ % of the logit's standard deviation" in said


def test_another_network_is_said_to_be_another():
    """What is compared is that network's own map; without a control there is no column of one."""
    document = full_document(cam__new_network=True, cam__found__control=None, cam__waived=["cam_control"])
    said = words(cam.map_section(document))
    assert "That network is another than the trained model" in said
    assert "head random" not in said
    assert "Gates waived by the recipe cam_control" in said
    assert "another than the trained model" not in words(cam.map_section(full_document()))


def test_the_lesions():
    """Hits and energy of both with the difference and its interval; the splits, what was left out, and what chance would hit."""
    said = words(cam.map_section(full_document()))
    assert "79 frames of 72 groups (57 of train, 22 of test; 42 left out: the mask is empty)" in said
    assert "68.3 %" in said
    assert "69.6 %" in said
    assert "0.013 \u22120.087 to 0.113" in said
    assert "would hit 11.8 %" in said
    assert "On the lesions" not in words(cam.map_section(full_document(cam__found__localisation=None)))
    none = words(cam.map_section(full_document(cam__found__localisation__frames=0)))
    assert "no frame with a mask could be used (42 left out: the mask is empty)" in none


def test_the_worst_frames_stand_side_by_side():
    """Three pictures a frame, in the order of the document, with the correlation, the step of the peak and the label; a warning that these are patients."""
    section = str(cam.map_section(full_document(), worst_maps()))
    cards = re.findall(r"<figure.*?</figure>", section)
    assert len(cards) == 3
    for index, card in enumerate(cards):
        assert re.findall(r"<span>(.*?)</span>", card) == ["frame", "FP32 map", "device map"]
        assert f"worst-{index}.png" in card
        assert f"Pearson 0.{61 + 10 * index}0" in card
    assert ["peak stays" in cards[0], "peak moves 1 cell," in cards[1], "peak moves 2 cells," in cards[2]] == [True] * 3
    assert "images of patients" in section
    assert "images of patients" not in str(cam.map_section(full_document()))


def test_a_bundle_without_a_map_says_that_no_gate_asks():
    """The reason, and that nothing is held against it."""
    said = words(cam.map_section(full_document(cam__rows=0, cam__reason="the head is unknown")))
    assert "because the head is unknown. No gate asks for what there is not." in said


def test_the_page_takes_the_pictures():
    """The page shows the worst frames it is given, and hostile names in them stay text."""
    document = full_document()
    document["cam"]["worst"][0]["file"] = "<script>alert(1)</script>"
    pictures = worst_maps()
    pictures["<script>alert(1)</script>"] = pictures.pop("worst-0.png")
    page = compile_page.render(document, {}, None, pictures)
    assert "Worst 3 frames" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("name", "bound"), [("cam_pearson", "at least 0.950"), ("cam_peak", "at least 95.00 %"), ("cam_pointing_game", "above \u22120.0500")]
)
def test_a_gates_bound_is_said_the_right_way_round(name, bound):
    """A least value is called at least, a bound that must be passed above."""
    (gate,) = [gate for gate in full_document()["gates"] if gate["name"] == name]
    assert bound in words(gates.gates_section({"gates": [gate]}))
