"""The message inside a stamp: seven bytes of text, a code that repairs flipped bits, 100 bits in all; bit for bit the authors' format.

| bits | what |
|---|---|
| 0..55 | seven bytes of UTF-8, padded with spaces, most significant bit first |
| 56..90 | 35 check bits of a BCH code: (127, 92) over GF(2^7), shortened to (91, 56), repairs any five flips among bits 0..90 |
| 91..99 | always zero |

BCH in short: the 91 bits are the coefficients of a polynomial c(x) over GF(2) that is a multiple of g(x), and g is chosen so that a, a^2, ..., a^10 are
roots of every multiple (a generates GF(2^7)). A received word r = c + e has the same values there as the errors e alone: the *syndromes* S_j = r(a^j).
Berlekamp and Massey's algorithm finds the shortest polynomial whose roots explain the syndromes, trying all elements (Chien's search) finds the roots, and
each root names a flipped bit. Everything works on a batch of words at once, because a video asks for many.
"""
from __future__ import annotations

import math
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from pttp.errors import BadInput, MessageTooLong, NoStampFound

BITS = 100
BYTES = 7
DATA = 8 * BYTES
FIELD = 127  # non-zero elements of GF(2^7), and bits of the full code word
POLYNOMIAL = 0b10001001  # x^7 + x^3 + 1
REPAIRS = 5
CHECKS = 35
CODE = DATA + CHECKS  # 91 bits that the code protects
CONSTANTS = BITS - CODE  # nine bits that are always zero
WRONG_CONSTANTS = 2  # so many of the nine may be read wrong, see `false_positive_rate`


def _field_tables() -> tuple[np.ndarray, np.ndarray]:
    """EXP[i] = a^i for i < 254 (twice round, so that two logarithms can be added), LOG its inverse."""
    exp, log, x = np.zeros(2 * FIELD, np.int64), np.zeros(FIELD + 1, np.int64), 1
    for i in range(FIELD):
        exp[i] = exp[i + FIELD] = x
        log[x] = i
        x <<= 1
        if x > FIELD:
            x ^= POLYNOMIAL
    return exp, log


EXP, LOG = _field_tables()


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product in GF(2^7), element by element."""
    return np.where((a == 0) | (b == 0), 0, EXP[LOG[a] + LOG[b]])


def inverse(a: np.ndarray) -> np.ndarray:
    """1 / a for non-zero a."""
    return EXP[(FIELD - LOG[a]) % FIELD]


def _generator() -> int:
    """g(x) as bits: the product of the minimal polynomials of a, a^3, a^5, a^7 and a^9 (0xca76024d7)."""
    g = 1
    for j in range(1, 2 * REPAIRS, 2):
        roots = {j * 2**k % FIELD for k in range(7)}
        minimal = [1]  # coefficients in GF(2^7), highest first; multiplied out they are 0 and 1
        for root in sorted(roots):
            shifted = minimal + [0]
            scaled = [0] + [int(multiply(np.array(c), EXP[root])) for c in minimal]
            minimal = [a ^ b for a, b in zip(shifted, scaled, strict=True)]
        factor = int("".join(map(str, minimal)), 2)
        g = reduce(lambda acc, i: acc ^ (g << i if factor >> i & 1 else 0), range(len(minimal)), 0)
    return g


GENERATOR = _generator()


def _check_matrix() -> np.ndarray:
    """(56, 35): row i is what bit i of the data adds to the check bits, x^(90 - i) mod g."""
    rows = []
    for i in range(DATA):
        r = 1 << (CODE - 1 - i)
        for bit in range(CODE - 1, CHECKS - 1, -1):
            if r >> bit & 1:
                r ^= GENERATOR << (bit - CHECKS)
        rows.append([r >> k & 1 for k in range(CHECKS - 1, -1, -1)])
    return np.array(rows, np.uint8)


CHECK_MATRIX = _check_matrix()
_POWERS = EXP[np.outer(np.arange(CODE - 1, -1, -1), np.arange(1, 2 * REPAIRS, 2)) % FIELD]  # (91, 5): what bit i adds to S_1, S_3, .., S_9
_SYNDROME_BITS = (_POWERS[..., None] >> np.arange(7) & 1).reshape(CODE, -1).astype(np.float32)  # (91, 35)


def encode_words(data: np.ndarray) -> np.ndarray:
    """Data bits (N, 56) -> code words (N, 91), uint8."""
    data = np.asarray(data, np.uint8)
    return np.concatenate([data, (data.astype(np.int64) @ CHECK_MATRIX & 1).astype(np.uint8)], 1)


def syndromes(words: np.ndarray) -> np.ndarray:
    """Words (N, 91) -> S_1 .. S_10 (N, 10), elements of GF(2^7); all zero for a code word."""
    sums = np.asarray(words, np.float32) @ _SYNDROME_BITS  # whole numbers below 2^24: exact in float32, and fast
    odd = (sums.astype(np.int64) & 1).reshape(-1, REPAIRS, 7) @ (1 << np.arange(7))
    s = np.zeros((len(odd), 2 * REPAIRS + 1), np.int64)
    s[:, 1::2] = odd
    for j in range(2, 2 * REPAIRS + 1, 2):
        s[:, j] = multiply(s[:, j // 2], s[:, j // 2])  # S_2j = S_j^2 in characteristic 2
    return s[:, 1:]


def _error_locator(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Berlekamp-Massey on a batch: syndromes (N, 10) -> locator polynomials (N, 11), lowest coefficient first, and the number of errors that each claims."""
    n, width = len(s), 2 * REPAIRS + 1
    sigma, previous = np.zeros((2, n, width), np.int64)
    sigma[:, 0] = previous[:, 0] = 1
    length, gap, last = np.zeros(n, np.int64), np.ones(n, np.int64), np.ones(n, np.int64)
    columns = np.arange(width)
    for k in range(0, 2 * REPAIRS, 2):  # the discrepancy is zero at every second step
        d = s[:, k].copy()
        for i in range(1, k + 1):
            d ^= multiply(sigma[:, i], s[:, k - i])
        shift = columns - gap[:, None]
        moved = np.where(shift >= 0, np.take_along_axis(previous, np.maximum(shift, 0), 1), 0)
        update = sigma ^ multiply(multiply(d, inverse(last))[:, None], moved)
        wrong = d != 0
        grows = wrong & (2 * length <= k)
        previous = np.where(grows[:, None], sigma, previous)
        last = np.where(grows, d, last)
        gap = np.where(grows, 1, gap + 1) + 1
        length = np.where(grows, k + 1 - length, length)
        sigma = np.where(wrong[:, None], update, sigma)
    return sigma, length


def correct(words: np.ndarray, chunk: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Repair up to five flips in each word (N, 91).

    Returns the code words (N, 91) uint8 and how many bits were repaired (N,), -1 where no code word is that near (the word is then returned as it came).
    """
    words = np.array(words, np.uint8)
    repaired = np.zeros(len(words), np.int64)
    s = syndromes(words)
    broken = np.flatnonzero(s.any(1))
    positions = np.arange(FIELD)
    for rows in (broken[i : i + chunk] for i in range(0, len(broken), chunk)):
        sigma, length = _error_locator(s[rows])
        value = np.zeros((len(rows), FIELD), np.int64)
        for i in range(REPAIRS + 1):  # sigma(a^-p) = 0 says that the bit of x^p is flipped
            value ^= multiply(sigma[:, i, None], EXP[-i * positions % FIELD][None])
        roots = value == 0
        fine = (length <= REPAIRS) & ~sigma[:, REPAIRS + 1 :].any(1) & (roots.sum(1) == length) & ~roots[:, CODE:].any(1)
        words[rows[fine]] ^= roots[fine, CODE - 1 :: -1].astype(np.uint8)
        repaired[rows] = np.where(fine, length, -1)
    return words, repaired


@dataclass(frozen=True)
class Payload:
    """What `unpack` found. `bits` (100,) are the repaired bits; `corrected` of the 91 coded bits were flipped, `wrong_constants` of the nine constant ones.

    `confidence` in [0, 1] is how clearly the given bits agree with the repaired ones: 1 when every one was certain and right, 0 for noise.
    """

    message: str
    bits: np.ndarray
    corrected: int
    wrong_constants: int
    confidence: float


def pack(message: str) -> np.ndarray:
    """`message`, one to seven bytes of UTF-8 -> bits (100,) uint8 of 0 and 1.

    Spaces at the end are padding: they do not come back. Raises MessageTooLong (says how long it is) and BadInput for an empty message and for control
    characters.
    """
    message = message.rstrip(" ")
    try:
        data = message.encode()
    except UnicodeEncodeError as error:
        where = f"character {error.start + 1} of {len(message)}"
        raise MessageTooLong(f"This message has half of a surrogate pair ({where}), which cannot be written as UTF-8: remove it.") from error
    if len(data) > BYTES:
        raise MessageTooLong(f"This message takes {len(data)} bytes and a stamp holds {BYTES}: shorten it, or stamp a link, which may have any length.")
    if not data:
        raise BadInput("The message is empty: type one to seven characters, or a link.")
    if not printable(message):
        raise BadInput("The message holds a control character or one that cannot be seen: leave it out.")
    word = encode_words(np.unpackbits(np.frombuffer(data.ljust(BYTES), np.uint8))[None])[0]
    return np.concatenate([word, np.zeros(CONSTANTS, np.uint8)])


def printable(text: str) -> bool:
    """No control, format, surrogate, private or unassigned character, and no line or paragraph separator."""
    return not any(unicodedata.category(c)[0] == "C" or unicodedata.category(c) in ("Zl", "Zp") for c in text)


def text_of(data: bytes) -> str | None:
    """The message that `pack` made into these seven bytes, or None when it made no message into them."""
    try:
        text = data.decode().rstrip(" ")
    except UnicodeDecodeError:
        return None
    return text if text and printable(text) else None


def unpack_all(bits: np.ndarray) -> list[Payload | None]:
    """`unpack` for a batch (N, 100); None where there is no message."""
    soft = np.asarray(bits, np.float64)
    if soft.ndim != 2 or soft.shape[1] != BITS:
        raise BadInput(f"A stamp has {BITS} bits: give an array of shape (N, {BITS}), not {soft.shape}.")
    if not ((soft >= 0) & (soft <= 1)).all():
        raise BadInput("Bits are 0 and 1 or probabilities between them: put logits through a sigmoid first.")
    hard = (soft > 0.5).astype(np.uint8)
    words, corrected = correct(hard[:, :CODE])
    wrong_constants = hard[:, CODE:].sum(1)
    accepted = (corrected >= 0) & (wrong_constants <= WRONG_CONSTANTS)
    out: list[Payload | None] = [None] * len(soft)
    for i in np.flatnonzero(accepted):
        text = text_of(np.packbits(words[i, :DATA]).tobytes())
        if text is not None:
            clean = np.concatenate([words[i], np.zeros(CONSTANTS, np.uint8)])
            agreement = ((2.0 * soft[i] - 1) * (2.0 * clean - 1)).mean()
            out[i] = Payload(text, clean, int(corrected[i]), int(wrong_constants[i]), float(max(agreement, 0.0)))
    return out


def unpack(bits: np.ndarray) -> Payload:
    """100 bits as read from a picture, 0 and 1 or the probabilities that they are 1 -> the message in them.

    Raises NoStampFound when they are no message: more than five of the coded bits or more than two of the nine constant bits are wrong, or the bytes are
    no text.
    """
    payload = unpack_all(np.asarray(bits)[None])[0]
    if payload is None:
        raise NoStampFound("No stamp can be read here: show the whole stamped picture, sharp, evenly lit and as large as you can.")
    return payload


@cache
def share_of_text() -> float:
    """The share of all 2^56 byte strings that `text_of` reads as a message, counted character by character (strings of spaces are not taken out)."""
    by_length = [0] * 5
    for code in range(sys.maxunicode + 1):
        c = chr(code)
        if printable(c):
            by_length[len(c.encode())] += 1
    strings = [1]  # strings[n]: how many texts take n bytes
    for n in range(1, BYTES + 1):
        strings.append(sum(by_length[k] * strings[n - k] for k in range(1, min(n, 4) + 1)))
    return strings[BYTES] / 256**BYTES


def false_positive_rate(rotations: int = 4, constants: int = WRONG_CONSTANTS, repairs: int = REPAIRS) -> float:
    """Bound on how often 100 fair coins are read as a message when they are tried in `rotations` directions.

    Three conditions, independent of each other for fair coins:

    * within `repairs` = five flips of a code word: 2^56 words, sum of C(91, i) for i = 0..5 = 49,302,800 patterns around each, none of them shared, out of 2^91: 1.4e-3;
    * at most `constants` of the nine constant bits wrong: for two 46 / 512 = 9.0e-2 (none wrong: 2e-3; but these bits have no code of their own, and at 3
      % of wrong bits a quarter of all stamps has one there);
    * the seven bytes are text as `pack` takes it: 3.0e-3, see `share_of_text`.

    Together 3.8e-7, over four rotations 1.5e-6. The outputs of a decoder on a plain photo are no fair coins, so that this must be measured as well.
    """
    near = sum(math.comb(CODE, i) for i in range(repairs + 1)) * 2.0 ** (DATA - CODE)
    zeros = sum(math.comb(CONSTANTS, i) for i in range(constants + 1)) / 2**CONSTANTS
    return rotations * near * zeros * share_of_text()
