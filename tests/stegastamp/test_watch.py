"""Votes over frames, without a network: looks are made of a known message and noise."""
from __future__ import annotations

import numpy as np
import pytest

from pttp.stegastamp import message, reading, watch
from pttp.stegastamp.reading import Look
from pttp.stegastamp.watch import Watch

QUAD = np.array([[100.0, 80], [300, 90], [290, 280], [95, 270]])


def look(text: str, rng: np.random.Generator, noise: float, quad: np.ndarray = QUAD, turns: int = 0, loud: float = 2.0) -> Look:
    """A quad in which `text` stands turned by `turns` quarters; its bits carry normal noise, the other three readings are noise alone."""
    logits = rng.normal(0, noise, (4, message.BITS))
    logits[turns] += loud * (2.0 * message.pack(text) - 1)
    payload = reading.strict(message.unpack_all(reading.probabilities(logits[turns])[None])[0])
    return Look(quad, logits, turns, payload)


def test_frames_that_cannot_be_read_alone_can_together():
    rng, w = np.random.default_rng(0), Watch()
    confidences = []
    for i in range(30):
        one = look("aB3dE9x", rng, noise=2.0)  # one bit in six is wrong
        assert one.payload is None
        (track,) = w.add([one], i * 0.1)
        confidences.append(track.confidence)
        if track.payload:
            break
    assert track.payload and track.payload.message == "aB3dE9x" and 2 <= track.frames < 30
    assert confidences[-1] == 1.0 and all(c < 1 for c in confidences[:-1])


def test_confidence_climbs_until_the_code_verifies():
    rng, w = np.random.default_rng(1), Watch()
    seen = [w.add([look("Hello!", rng, 2.0)], i * 0.1)[0].confidence for i in range(12)]
    assert seen == sorted(seen) or np.mean(np.diff(seen)) > 0.02
    assert seen[-1] == 1.0


def test_noise_is_never_read():
    rng = np.random.default_rng(2)
    for _ in range(20):
        w = Watch()
        for i in range(50):
            (track,) = w.add([Look(QUAD, rng.normal(0, 3, (4, message.BITS)), 0, None)], i * 0.1)
            assert track.payload is None and track.confidence < 1


@pytest.mark.parametrize("turns", range(4))
def test_rotation_and_own_corners(turns):
    (track,) = Watch().add([look("up", np.random.default_rng(3), 0.1, turns=turns)], 0.0)
    assert track.payload.message == "up" and track.rotation == 90 * turns
    assert np.array_equal(track.own_quad[0], QUAD[turns])


@pytest.mark.parametrize("shift", range(4))
def test_votes_survive_a_change_of_the_first_corner(shift):
    """Near 45 degrees another corner becomes the top left one: the four hypotheses must turn along."""
    rng, w = np.random.default_rng(4), Watch()
    w.add([look("turning", rng, 2.0)], 0.0)
    for i in range(1, 12):  # the stamp stands as it stood, only the corners are counted from another one
        w.add([look("turning", rng, 2.0, quad=np.roll(QUAD, -shift, 0), turns=(-shift) % 4)], i * 0.1)
    (track,) = w.tracks
    assert track.frames == 12 and track.payload and track.payload.message == "turning"
    assert np.array_equal(track.own_quad, QUAD)


def test_a_moving_quad_is_one_track_and_a_far_one_another():
    rng, w = np.random.default_rng(5), Watch()
    for i in range(10):
        tracks = w.add([look("left", rng, 0.1, QUAD + 8.0 * i), look("right", rng, 0.1, QUAD + (500 - 5 * i, 10))], i * 0.1)
    assert len(tracks) == 2 and {t.frames for t in tracks} == {10} and len({t.number for t in tracks}) == 2
    assert {t.payload.message for t in tracks} == {"left", "right"}


def test_a_track_that_is_not_seen_is_given_up_and_forgotten():
    rng, w = np.random.default_rng(6), Watch()
    w.add([look("gone", rng, 0.1)], 0.0)
    assert len(w.add([], watch.PATIENCE)) == 1
    assert w.add([], watch.PATIENCE + 0.01) == []
    (track,) = w.add([Look(QUAD, rng.normal(0, 0.1, (4, message.BITS)), 0, None)], 5.0)
    assert track.frames == 1 and track.payload is None


def test_one_glaring_frame_does_not_outvote_the_others():
    rng, w = np.random.default_rng(7), Watch()
    for i in range(6):
        w.add([look("steady", rng, 1.6)], i * 0.1)
    w.add([Look(QUAD, np.full((4, message.BITS), 1000.0), 0, None)], 0.6)
    for i in range(7, 12):
        (track,) = w.add([look("steady", rng, 1.6)], i * 0.1)
    assert track.payload and track.payload.message == "steady"


def test_a_track_keeps_its_message():
    rng, w = np.random.default_rng(8), Watch()
    (track,) = w.add([look("first", rng, 0.1)], 0.0)
    for i in range(5):
        (track,) = w.add([Look(QUAD, rng.normal(0, 4, (4, message.BITS)), 2, None)], 0.1 * i)
    assert track.payload.message == "first" and track.turns == 0 and track.confidence == 1.0


@pytest.mark.parametrize("noise", [0.1, 2.0], ids=["read in one frame", "read by votes"])
def test_another_picture_in_the_same_place_is_read_too(noise):
    rng, w = np.random.default_rng(9), Watch()
    w.add([look("first", rng, 0.1)], 0.0)
    said = [w.add([look("second", rng, noise)], 0.1 * i)[0].payload.message for i in range(1, 30)]
    assert said[-1] == "second" and set(said) == {"first", "second"} - ({"first"} if noise < 1 else set())
