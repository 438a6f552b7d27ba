"""Reading stamps out of a video: the same quad over several frames is one track, and its frames vote on every bit.

One frame may be too blurred for the code; but its errors are not those of the next one. Each track adds up the logits of its frames (a sum of logits is
the product of independent opinions), older ones fading, until the code verifies.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pttp.stegastamp import message, reading

NEAR = 0.25  # of the quad's side: how far the corners of a track may move from frame to frame
MEMORY = 0.85  # what the votes so far still count when the next frame votes
PATIENCE = 1.0  # seconds after which a track that is not found again is given up
LOUDEST = 6.0  # a single frame's logit counts no more than this, so that one glare cannot outvote ten frames


@dataclass(frozen=True)
class Track:
    """A stamp that is followed. `votes` (4, 100): summed logits by quarter turns, for `quad` (4, 2) as seen; `payload` once the code has verified."""

    number: int
    quad: np.ndarray
    votes: np.ndarray
    frames: int
    seen: float
    turns: int = 0
    payload: message.Payload | None = None

    @property
    def confidence(self) -> float:
        """In [0, 1]: how decided the bits are; 1 only when the code has verified."""
        if self.payload:
            return 1.0
        return float(min(0.99, np.tanh(np.abs(self.votes[self.turns]) / 2).mean() ** 2))

    @property
    def own_quad(self) -> np.ndarray:
        """The corners, clockwise from the stamp's own top left."""
        return np.roll(self.quad, -self.turns, 0)

    @property
    def rotation(self) -> int:
        return 90 * self.turns


def side(quad: np.ndarray) -> float:
    return float(np.linalg.norm(quad - np.roll(quad, 1, 0), axis=1).mean())


def same(track: Track, quad: np.ndarray) -> tuple[float, int]:
    """How far `quad` is from the track, in sides, and by how many corners its order is shifted (what is the top left corner may change in a turn)."""
    gaps = [np.linalg.norm(np.roll(quad, k, 0) - track.quad, axis=1).max() for k in range(4)]
    k = int(np.argmin(gaps))
    return gaps[k] / max(side(track.quad), 1.0), k


class Watch:
    """The tracks of one video: give it the looks at each frame. One object a visitor; not for several threads at once."""

    def __init__(self):
        self.tracks: list[Track] = []
        self._next = 1

    def add(self, looks: list[reading.Look], seconds: float) -> list[Track]:
        """Take in what was seen in the frame at time `seconds`; the tracks that live on, the clearest first."""
        free = [t for t in self.tracks if seconds - t.seen <= PATIENCE]
        kept = []
        for look in looks:
            distances = [(*same(t, look.quad), i) for i, t in enumerate(free)]
            near = min(distances, default=(np.inf, 0, 0))
            if near[0] <= NEAR:
                track, shift = free.pop(near[2]), near[1]
            else:
                track, shift = Track(self._next, look.quad, np.zeros_like(look.logits), 0, seconds), 0
                self._next += 1
            kept.append(vote(track, look, shift, seconds))
        self.tracks = sorted(kept + free, key=lambda t: t.confidence, reverse=True)
        return self.tracks


def vote(track: Track, look: reading.Look, shift: int, seconds: float) -> Track:
    """The track with this frame's opinion. Turning the corners' order by `shift` turns the four hypotheses too."""
    quad, logits = np.roll(look.quad, shift, 0), np.roll(look.logits, shift, 0)
    votes = MEMORY * track.votes + logits.clip(-LOUDEST, LOUDEST)
    track = replace(track, quad=quad, votes=votes, frames=track.frames + 1, seen=seconds)
    payloads = [reading.strict(p) for p in message.unpack_all(reading.probabilities(votes))]
    turns = max(range(4), key=lambda k: (payloads[k] is not None, reading.clarity(votes[k])))
    fresh = (look.payload, (look.turns + shift) % 4) if look.payload else (payloads[turns], turns)
    if fresh[0] and (not track.payload or fresh[0].message != track.payload.message):  # also when one picture takes another one's place
        return replace(track, payload=fresh[0], turns=fresh[1])
    return track if track.payload else replace(track, turns=turns)
