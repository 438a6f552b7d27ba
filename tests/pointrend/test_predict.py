"""Clicking with the embedded weights: every click is obeyed, the answer depends on the clicks alone, and what cannot be meant gets a sentence."""
from __future__ import annotations

import importlib.util
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pttp
from pttp import images
from pttp.errors import BadImage, BadInput
from pttp.pointrend.predict import NothingFound
from pttp.pointrend.session import Session, tidy

SKIMAGE = Path(importlib.util.find_spec("skimage").origin).parent / "data"
PHOTOS = {"chelsea": (SKIMAGE / "chelsea.png", (200, 150)), "coffee": (SKIMAGE / "coffee.png", (290, 150)), "astronaut": (SKIMAGE / "astronaut.png", (230, 300))}


@pytest.fixture(scope="module")
def net():
    return pttp.load("pointrend", "embedded")


@pytest.fixture(scope="module")
def opened(net):
    return {name: net.open(path) for name, (path, _) in PHOTOS.items()}


def obeys(mask: np.ndarray, points, labels) -> bool:
    return all(mask[int(y), int(x)] == bool(label) for (x, y), label in zip(points, labels))


@pytest.mark.parametrize("name", PHOTOS)
def test_a_click(net, opened, name):
    path, point = PHOTOS[name]
    made = opened[name].click([point], [1], anyway=True)
    h, w = opened[name].shape
    assert made.mask.shape == (h, w) and made.mask.dtype == bool and made.mask[point[1], point[0]]
    rows, columns = made.mask.nonzero()
    assert made.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    x0, y0, x1, y1 = made.window
    assert 0 <= x0 <= made.box[0] + 1 and x1 >= made.box[2] - 1 and 0 <= y0 <= made.box[1] + 1 and y1 >= made.box[3] - 1 and x1 <= w + 0.5 and y1 <= h + 0.5
    assert made.logits.shape == (224, 224) and 0 <= made.score <= 1 and made.label in net.config["classes"]
    net.set_image(path)
    assert np.array_equal(net.click([point], [1], anyway=True).mask, made.mask)


def test_the_steps_are_the_papers(opened):
    made = opened["chelsea"].click([PHOTOS["chelsea"][1]], [1], anyway=True)
    assert [(s.size, len(s.points)) for s in made.steps] == [(7, 0), (28, 784), (56, 784), (112, 784), (224, 784)]
    x0, y0, x1, y1 = made.window
    for step in made.steps[1:]:
        assert step.logits.shape == (step.size, step.size)
        x, y = step.points.T
        assert x.min() >= x0 and x.max() <= x1 and y.min() >= y0 and y.max() <= y1
        cell = (step.points - (x0, y0)) / ((x1 - x0) / step.size, (y1 - y0) / step.size) - 0.5
        assert np.abs(cell - cell.round()).max() < 0.02  # the middles of cells
    before, after = made.steps[1].logits, made.steps[2]
    column, row = ((after.points - (x0, y0)) / ((x1 - x0) / 28, (y1 - y0) / 28)).astype(int).T
    assert np.abs(before[row, column]).mean() < 0.5 * np.abs(before).mean()  # where it was not sure


@pytest.mark.parametrize(("count", "steps", "sizes"), [(196, 5, [7, 14, 28, 56, 112, 224]), (784, 3, [7, 28, 56]), (49, 1, [7, 7, 14]), (3136, 5, [7, 56, 112, 224])])
def test_fewer_or_more_points(opened, count, steps, sizes):
    made = opened["chelsea"].click([PHOTOS["chelsea"][1]], [1], anyway=True, count=count, steps=steps)
    assert [s.size for s in made.steps] == sizes and all(len(s.points) <= max(count, s.size**2 if i == 1 else 0) for i, s in enumerate(made.steps))


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("seed", range(4))
def test_every_click_is_obeyed(opened, name, seed):
    """Also clicks that make no sense: pixels anywhere, called object or not by a coin."""
    h, w = opened[name].shape
    rng = np.random.default_rng(seed)
    points = [PHOTOS[name][1], *zip(rng.uniform(0, w, 9).tolist(), rng.uniform(0, h, 9).tolist())]
    labels = [1, *rng.integers(0, 2, 9).tolist()]
    for n in (1, 3, 10):
        assert obeys(opened[name].click(points[:n], labels[:n], anyway=True).mask, points[:n], labels[:n])


@pytest.mark.parametrize("name", PHOTOS)
def test_a_correction_is_not_a_dot(opened, name):
    """A click where the mask is wrong changes an area around it, not the pixel alone, and little of what is far away."""
    session, point = opened[name], PHOTOS[name][1]
    before = session.click([point], [1], anyway=True).mask
    rows, columns = before.nonzero()
    y, x = int(rows[len(rows) // 5]), int(columns[len(rows) // 5])
    after = session.click([point, (x, y)], [1, 0], anyway=True).mask
    assert not after[y, x] and after[point[1], point[0]]
    gone = before & ~after
    assert gone.sum() > 0.002 * before.sum() and gone[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].mean() > 0.2


def test_the_answer_depends_on_the_clicks_alone(net, opened):
    path, point = PHOTOS["chelsea"]
    clicks = [point, (300, 160), (30, 30), (150, 250)], [1, 1, 0, 1]
    for n in (1, 2, 3, 4, 2):
        last = opened["chelsea"].click(clicks[0][:n], clicks[1][:n], anyway=True)
    fresh = net.open(path).click(clicks[0][:2], clicks[1][:2], anyway=True)
    assert np.array_equal(last.mask, fresh.mask) and np.array_equal(last.logits, fresh.logits)


def test_pressing_the_same_spot_goes_through_other_objects(opened):
    session, (x, y) = opened["astronaut"], PHOTOS["astronaut"][1]
    made = [session.click([(x + i % 2, y)] * n + [(x, y)] * (i % 2), [1] * (n + i % 2), anyway=True) for i, n in enumerate((1, 1, 3, 4, 5))]
    choices = made[1].choices
    assert choices > 1 and [m.choice for m in made] == [1, 2, *[(n - 1) % choices + 1 for n in (3, 5, 5)]]
    distinct = [session.click([(x, y)] * n, [1] * n, anyway=True).mask for n in range(1, choices + 1)]
    for i, a in enumerate(distinct):
        for b in distinct[:i]:
            assert np.count_nonzero(a & b) / np.count_nonzero(a | b) < 0.9
    assert all(m[y, x] for m in distinct)
    again = session.click([(x, y)] * (choices + 1), [1] * (choices + 1), anyway=True)
    assert again.choice == 1 and np.array_equal(again.mask, distinct[0])


def test_of_contradicting_clicks_the_last_counts_and_that_is_said(opened):
    session, (x, y) = opened["chelsea"], PHOTOS["chelsea"][1]
    made = session.click([(x, y), (50.2, 60), (50.9, 60.4)], [1, 1, 0], anyway=True)
    assert not made.mask[60, 50] and len(made.said) == 1 and "At (50, 60)" in made.said[0] and "last click counts" in made.said[0]
    assert session.click([(x, y), (50, 60), (50, 60), (50, 60)], [1, 0, 1, 0], anyway=True).said[1:]


@pytest.mark.parametrize(
    ("points", "labels", "words"),
    [
        ([], [], "Click on the object first"),
        ([(10, 10)], [], "one label, 1 or 0, for each point"),
        ([(10, 10)], [2], "A label is 1"),
        ([(451, 10)], [1], "outside of this picture of 451 x 300"),
        ([(-0.1, 10)], [1], "outside"),
        ([(10, 300)], [1], "y from 0 to 299"),
        ([(float("nan"), 10)], [1], "outside"),
        ([(10, 10), (20, 20)], [0, 0], "click once on the object itself"),
        ([(10, 10), (10, 10)], [1, 0], "click once on the object itself"),
        ([("a", "b")], [1], "list of (x, y)"),
        ([(1, 2, 3)], [1], "list of (x, y)"),
        ([(10**400, 2)], [1], "list of (x, y)"),
        ([(10, 10)] * 101, [1] * 101, "more than the 100"),
    ],
)
def test_clicks_that_cannot_be_meant(opened, points, labels, words):
    with pytest.raises(BadInput) as error:
        opened["chelsea"].click(points, labels)
    assert words in str(error.value)
    assert opened["chelsea"].click([(200, 150)], [1], anyway=True).mask.any()


def test_the_first_positive_click_names_the_object():
    clicks = tidy([(5, 5), (50, 50), (51, 50), (90, 20)], [0, 1, 1, 1], (100, 100))
    assert clicks.places == ((50.5, 50.5), (5.5, 5.5), (90.5, 20.5)) and clicks.labels == (1, 0, 1) and clicks.presses == 2 and clicks.signs == [1, -1, 1]


def test_nothing_is_found_in_a_plain_sky(net):
    sky = np.tile(np.linspace((90, 140, 220), (170, 200, 240), 240).astype(np.uint8)[:, None], (1, 320, 1))
    net.set_image(sky)
    with pytest.raises(NothingFound, match="Nothing was found here"):
        net.click([(160, 100)], [1])
    made = net.click([(160, 100)], [1], anyway=True)
    assert made.mask[100, 160] and made.mask.sum() > 20
    assert net.instances == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (17, 5), (33, 900)])
def test_odd_sizes(net, size):
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    net.set_image(noise)
    point = size[1] // 2, size[0] // 2
    made = net.click([point], [1], anyway=True)
    assert made.mask.shape == size and made.mask[point[1], point[0]]
    if size != (1, 1):
        both = net.click([point, (0, 0)], [1, 0], anyway=True)
        assert obeys(both.mask, [point, (0, 0)], [1, 0])
    assert isinstance(net.instances, list)


def test_a_photo_of_48_megapixels(net):
    large = Image.open(PHOTOS["chelsea"][0]).convert("RGB").resize((8000, 6000), Image.Resampling.BILINEAR)
    small = net.open(large.resize((800, 600))).click([(354, 300)], [1], anyway=True)
    began = time.process_time()
    net.set_image(np.asarray(large))
    made = net.click([(3545, 3005), (10, 5990)], [1, 0], anyway=True)
    assert time.process_time() - began < 20
    assert made.mask.shape == (6000, 8000) and made.mask[3005, 3545] and not made.mask[5990, 10]
    first = net.click([(3545, 3005)], [1], anyway=True).mask[5::10, 5::10]
    assert np.count_nonzero(first & small.mask) / np.count_nonzero(first | small.mask) > 0.97  # the network sees it at the same size


def test_instances(net, opened):
    for session in opened.values():
        scores = [i.score for i in session.instances]
        assert scores == sorted(scores, reverse=True)
        for i, one in enumerate(session.instances):
            assert one.mask.shape == session.shape and one.mask.any() and one.label in net.config["classes"] and 0 < one.score <= 1
            assert one.box[0] < one.box[2] and one.mask[:, one.box[0]].any() and one.mask[one.box[3] - 1].any()


def test_results_are_json_without_pixels(opened):
    told = json.loads(json.dumps(opened["chelsea"].click([(200, 150)], [1], anyway=True).to_dict()))
    assert told["points"] == [0, 784, 784, 784, 784] and (told["width"], told["height"]) == (451, 300) and told["area"] > 0
    json.dumps([i.to_dict() for i in opened["chelsea"].instances])


def test_sessions_of_several_people_do_not_touch_each_other(net, opened):
    alone = {name: opened[name].click([point], [1], anyway=True).mask for name, (_, point) in PHOTOS.items()}
    wrong = []

    def person(name):
        session: Session = net.open(PHOTOS[name][0])
        for _ in range(3):
            if not np.array_equal(session.click([PHOTOS[name][1]], [1], anyway=True).mask, alone[name]):
                wrong.append(name)

    threads = [threading.Thread(target=person, args=(name,)) for name in (*PHOTOS, *PHOTOS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong


def test_before_a_picture(net):
    fresh = pttp.load("pointrend", "embedded")
    with pytest.raises(BadInput, match="set_image"):
        fresh.click([(1, 1)], [1])
    with pytest.raises(BadInput, match="set_image"):
        _ = fresh.instances


def test_pictures_of_every_kind(net, cases):
    for case in cases.values():
        if not case.is_file:
            continue
        if case.ok:
            h, w = images.to_array(case.path).shape[:2]
            assert net.open(case.path).click([(w // 2, h // 2)], [1], anyway=True).mask.shape == (h, w), case.name
        else:
            with pytest.raises(BadImage):
                net.open(case.path)


def test_the_numbers_beside_the_weights_are_theirs(net):
    """The horses that were kept aside, measured once more with one click: what metrics.json says, to half a point."""
    from pttp.pointrend import evaluate
    from pttp.training.instances import read
    from tests.shared import shared

    told = net.weights.metrics.get("clicks")
    if not told:
        pytest.skip("these weights have not been measured")
    photos = read(shared("data"), "val", folders=["weizmann_horses"])
    rows = evaluate.by_clicks(net.net, photos, clicks=1, longest=net.config["preprocess"]["longest"])
    assert evaluate.clicks_table(rows, 1)["horses"]["iou1"] == pytest.approx(told["horses"]["iou1"], abs=0.005)
