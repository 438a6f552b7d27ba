"""Label maps for faces that have none, from MediaPipe's face mesh: `python -m pttp.cagan.label PHOTOS OUT`.

Writes OUT/NAME.png beside every PHOTOS/NAME.jpg that shows a face from the front: 1 skin, 2 nose, 4 and 5 eyes, 6 and 7 brows, 10 inner mouth, 11 and 12 lips, as
in CelebAMask-HQ. The mesh does not see what hides a face: hair and glasses are called skin. For training alone, and in an environment of its own, because the
last MediaPipe that brings its models along (mediapipe==0.10.21) wants a numpy that is older than ours.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

# outlines, as numbers of the mesh's points; left is the picture's left
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
NOSE = (168, 122, 174, 198, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 420, 399, 351)
EYES = ((33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7), (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249))
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
MOUTH = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
UPPER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78)
LOWER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 78)
PARTS = ((1, OVAL), (2, NOSE), (6, BROWS[0]), (7, BROWS[1]), (4, EYES[0]), (5, EYES[1]), (11, UPPER), (12, LOWER), (10, MOUTH))
TURNED = 0.45  # distance from the tip of the nose to the nearer side of the face, over that to the farther one: below it a face is no longer seen from the front
OPEN = 0.1  # height of the gap between the lips over its width: below it the mouth is shut, and what the mesh calls its inside is lip
FINER = 4  # outlines are drawn so many times larger, and the nearest pixel taken


def drawn(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The label map (H, W) uint8 of a mesh, `points` (468 or more, 2) in pixels of a picture of `size` (w, h)."""
    canvas = Image.new("L", (size[0] * FINER, size[1] * FINER))
    pen = ImageDraw.Draw(canvas)
    (left, right), (above, below) = points[[78, 308]], points[[13, 14]]
    shut = np.linalg.norm(below - above) < OPEN * np.linalg.norm(right - left)
    for label, outline in PARTS:
        if label == 10 and shut:
            label = 12
        pen.polygon([tuple(points[i] * FINER) for i in outline], fill=label)
    return np.asarray(canvas)[FINER // 2 :: FINER, FINER // 2 :: FINER]


def from_the_front(points: np.ndarray) -> bool:
    left, right = (float(np.linalg.norm(points[1] - points[side])) for side in (234, 454))
    return min(left, right) / max(left, right) >= TURNED


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("photos", type=Path)
    p.add_argument("out", type=Path)
    a = p.parse_args(argv)
    from mediapipe.python.solutions.face_mesh import FaceMesh

    a.out.mkdir(parents=True, exist_ok=True)
    photos, written = sorted(a.photos.glob("*.jpg")), 0
    with FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=1) as mesh:
        for path in photos:
            photo = Image.open(path).convert("RGB")
            found = mesh.process(np.asarray(photo.resize((2 * photo.width, 2 * photo.height), Image.Resampling.BICUBIC))).multi_face_landmarks
            if not found:
                continue
            points = np.array([(q.x, q.y) for q in found[0].landmark]) * photo.size
            if from_the_front(points):
                Image.fromarray(drawn(points, photo.size)).save(a.out / f"{path.stem}.png")
                written += 1
    print(f"{written} of {len(photos)} photos labelled")


if __name__ == "__main__":
    main()
