"""Messages there and back, what is refused, and how rarely noise is taken for a message."""
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pttp.errors import BadInput, MessageTooLong, NoStampFound
from pttp.stegastamp import message
from pttp.stegastamp.message import BITS, CODE, CONSTANTS, DATA, correct, encode_words, false_positive_rate, pack
from pttp.stegastamp.message import share_of_text, syndromes, text_of, unpack, unpack_all

ASCII = ["a", "Hello", "Stega!!", "7 bytes", " lead", "~" * 7, "0000000", "http://"]
MESSAGES = [*ASCII, "\u00e9t\u00e9", "\u65e5\u672c", "\U0001f600", "ab\U0001f600", "\u00df\u00fc\u00e4", "a\u0301"]


@pytest.mark.parametrize("text", MESSAGES)
def test_there_and_back(text):
    bits = pack(text)
    assert bits.shape == (BITS,) and bits.dtype == np.uint8 and not bits[CODE:].any()
    assert not syndromes(bits[None, :CODE]).any()
    read = unpack(bits)
    assert (read.message, read.corrected, read.wrong_constants, read.confidence) == (text, 0, 0, 1.0)
    assert (read.bits == bits).all()


@pytest.mark.parametrize("text, same", [("ab ", "ab"), ("Stega!! ", "Stega!!"), ("a      ", "a")])
def test_spaces_at_the_end_are_padding(text, same):
    assert (pack(text) == pack(same)).all()


@pytest.mark.parametrize(
    "text, error, says",
    [
        ("12345678", MessageTooLong, "takes 8 bytes"),
        ("\u00e9" * 4, MessageTooLong, "takes 8 bytes"),
        ("\U0001f600\U0001f600", MessageTooLong, "takes 8 bytes"),
        ("https://example.org/a/long/link", MessageTooLong, "stamp a link"),
        ("a\ud800", MessageTooLong, "character 2 of 2"),
        ("", BadInput, "empty"),
        ("   ", BadInput, "empty"),
        ("a\nb", BadInput, "control character"),
        ("\x00", BadInput, "control character"),
        ("\x7f", BadInput, "control character"),
        ("a\u202eb", BadInput, "cannot be seen"),
        ("\u200b", BadInput, "cannot be seen"),
        ("a\u2028", BadInput, "cannot be seen"),
    ],
)
def test_messages_that_are_refused(text, error, says):
    with pytest.raises(error, match=says) as caught:
        pack(text)
    assert type(caught.value) is error


@pytest.mark.parametrize("wrong", range(6))
def test_flipped_bits_are_repaired(wrong):
    rng = np.random.default_rng(wrong)
    sent = pack("aB3dE9x")
    for _ in range(200):
        bits = sent.copy()
        bits[rng.choice(CODE, wrong, replace=False)] ^= 1
        bits[CODE + rng.choice(CONSTANTS, 2, replace=False)] ^= 1
        read = unpack(bits)
        assert (read.message, read.corrected, read.wrong_constants) == ("aB3dE9x", wrong, 2)
        assert read.confidence == pytest.approx(1 - 2 * (wrong + 2) / BITS)


def test_more_than_five_flips_are_never_repaired_to_the_message():
    rng, sent = np.random.default_rng(0), pack("aB3dE9x")
    batch = np.repeat(sent[None], 2000, 0)
    for row in batch:
        row[rng.choice(CODE, rng.integers(6, 12), replace=False)] ^= 1
    read = unpack_all(batch)
    assert not [r for r in read if r and r.message == "aB3dE9x"]


def test_three_wrong_constants_are_too_many():
    bits = pack("aB3dE9x")
    bits[[91, 95, 99]] = 1
    with pytest.raises(NoStampFound, match="whole stamped picture"):
        unpack(bits)


def test_probabilities_and_tensors():
    bits = pack("soft")
    p = np.where(bits == 1, 0.8, 0.3)
    p[:5] = 1 - p[:5]
    read = unpack(torch.from_numpy(p))
    assert (read.message, read.corrected) == ("soft", 5)
    assert read.confidence == pytest.approx(((2 * p - 1) * (2.0 * bits - 1)).mean())
    assert unpack(bits == 1).message == "soft"


@pytest.mark.parametrize("bits", [np.zeros(99), np.zeros((2, 100)), np.full(100, 1.2), np.full(100, -3.0), np.full(100, np.nan)])
def test_bits_of_the_wrong_kind(bits):
    with pytest.raises(BadInput):
        unpack(bits)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_bits_are_no_message(value):
    """What an untrained or blinded decoder may give; all zeros are a code word."""
    with pytest.raises(NoStampFound):
        unpack(np.full(BITS, value))


def test_batches_agree_with_single_words():
    rng = np.random.default_rng(3)
    words = encode_words(rng.integers(0, 2, (300, DATA), dtype=np.uint8))
    words ^= (rng.random(words.shape) < 0.05).astype(np.uint8)
    fixed, repaired = correct(words, chunk=7)
    for word, a, b in zip(words, fixed, repaired, strict=True):
        one, n = correct(word[None])
        assert n[0] == b and (one[0] == a).all()


def test_a_repair_ends_at_a_code_word():
    words = np.random.default_rng(1).integers(0, 2, (50_000, CODE), dtype=np.uint8)
    fixed, repaired = correct(words)
    found = repaired >= 0
    assert found.any() and not syndromes(fixed[found]).any()
    assert ((fixed != words).sum(1) == np.maximum(repaired, 0)).all()


def test_the_arithmetic_of_false_positives():
    """The three factors, each measured on random bits, and their product below 1e-5 over four rotations."""
    n, rng = 400_000, np.random.default_rng(0)
    words = rng.integers(0, 2, (n, BITS), dtype=np.uint8)
    near = sum(math.comb(CODE, i) for i in range(6)) * 2.0**-35
    found = int((correct(words[:, :CODE])[1] >= 0).sum())
    assert abs(found - n * near) < 4 * math.sqrt(n * near)
    assert abs((words[:, CODE:].sum(1) <= 2).mean() - 46 / 512) < 4 * math.sqrt(0.09 / n)
    texts = [text_of(row.tobytes()) for row in rng.integers(0, 256, (n, 7), dtype=np.uint8)]
    text = sum(t is not None for t in texts)
    assert abs(text - n * share_of_text()) < 4 * math.sqrt(n * share_of_text())
    assert false_positive_rate() == pytest.approx(4 * near * 46 / 512 * share_of_text()) and false_positive_rate() < 1e-5


def test_noise_is_not_read():
    """300,000 random words, as hard bits and as probabilities: 0.1 messages are expected among them."""
    rng, read = np.random.default_rng(2024), 0
    for _ in range(15):
        words = rng.random((20_000, BITS))
        read += sum(r is not None for r in unpack_all(words))
    assert read <= 1  # a second one has a chance of less than 1 in 150


def test_every_text_is_one_that_pack_makes():
    rng = np.random.default_rng(5)
    for row in rng.integers(32, 127, (3000, 7), dtype=np.uint8):
        text = text_of(row.tobytes())
        assert text is None or text_of(np.packbits(pack(text)[:DATA]).tobytes()) == text


def test_the_generator_has_the_ten_roots():
    coefficients = [i for i in range(36) if message.GENERATOR >> i & 1]
    for j in range(1, 11):
        assert np.bitwise_xor.reduce([message.EXP[i * j % 127] for i in coefficients]) == 0
