"""The authors' deployment graph in TensorFlow, to be timed from outside: benchmarks/stegastamp.py starts this in an environment that has TensorFlow.

Needs nothing but TensorFlow and NumPy. The layers are those of the authors' `models.py` (400 x 400, 100 bits), the spatial transformer is that of the package
`stn` which they call; weights are random constants, as in a frozen graph, so that TensorFlow may fold and fuse what it likes. Protocol: for every line
"encode 1", "decode 1", "decode 4" on stdin a line with the milliseconds of one call on stdout; the first line out is TensorFlow's version.
"""
from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow.compat.v1 as tf

SIZE, BITS = 400, 100
rng = np.random.default_rng(0)


def constant(*shape: int) -> tf.Tensor:
    fan_in = int(np.prod(shape[:-1]))
    return tf.constant((rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32))


def conv(x: tf.Tensor, out: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> tf.Tensor:
    y = tf.nn.bias_add(tf.nn.conv2d(x, constant(kernel, kernel, x.shape[-1], out), [1, stride, stride, 1], "SAME"), tf.zeros([out]))
    return tf.nn.relu(y) if relu else y


def dense(x: tf.Tensor, out: int, relu: bool = True) -> tf.Tensor:
    y = tf.nn.bias_add(tf.matmul(x, constant(x.shape[-1], out)), tf.zeros([out]))
    return tf.nn.relu(y) if relu else y


def nearest(x: tf.Tensor, factor: int) -> tf.Tensor:
    return tf.image.resize_nearest_neighbor(x, [x.shape[1] * factor, x.shape[2] * factor])


def encoder(image: tf.Tensor, secret: tf.Tensor) -> tf.Tensor:
    s = nearest(tf.reshape(dense(secret - 0.5, 7500), [-1, 50, 50, 3]), 8)
    x = tf.concat([s, image - 0.5], -1)
    c1 = conv(x, 32)
    c2 = conv(c1, 32, stride=2)
    c3 = conv(c2, 64, stride=2)
    c4 = conv(c3, 128, stride=2)
    c5 = conv(c4, 256, stride=2)
    c6 = conv(tf.concat([c4, conv(nearest(c5, 2), 128, 2)], -1), 128)
    c7 = conv(tf.concat([c3, conv(nearest(c6, 2), 64, 2)], -1), 64)
    c8 = conv(tf.concat([c2, conv(nearest(c7, 2), 32, 2)], -1), 32)
    c9 = conv(tf.concat([c1, conv(nearest(c8, 2), 32, 2), x], -1), 32)
    return tf.clip_by_value(image + conv(c9, 3, 1, relu=False), 0, 1)


def spatial_transform(x: tf.Tensor, theta: tf.Tensor) -> tf.Tensor:
    batch = tf.shape(x)[0]
    line = tf.linspace(-1.0, 1.0, SIZE)
    xs, ys = tf.meshgrid(line, line)
    grid = tf.stack([tf.reshape(xs, [-1]), tf.reshape(ys, [-1]), tf.ones([SIZE * SIZE])])
    at = tf.reshape(tf.matmul(tf.reshape(theta, [-1, 2, 3]), tf.tile(grid[None], [batch, 1, 1])), [-1, 2, SIZE, SIZE])
    px, py = (0.5 * (at[:, i] + 1.0) * (SIZE - 2) for i in (0, 1))
    x0, y0 = tf.cast(tf.floor(px), tf.int32), tf.cast(tf.floor(py), tf.int32)
    x0, x1, y0, y1 = (tf.clip_by_value(v, 0, SIZE - 1) for v in (x0, x0 + 1, y0, y0 + 1))
    b = tf.tile(tf.reshape(tf.range(batch), [-1, 1, 1]), [1, SIZE, SIZE])

    def pixels(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather_nd(x, tf.stack([b, row, column], 3))

    fx0, fx1, fy0, fy1 = (tf.cast(v, tf.float32) for v in (x0, x1, y0, y1))
    weights = ((fx1 - px) * (fy1 - py), (fx1 - px) * (py - fy0), (px - fx0) * (fy1 - py), (px - fx0) * (py - fy0))
    corners = (pixels(y0, x0), pixels(y1, x0), pixels(y0, x1), pixels(y1, x1))
    return tf.add_n([w[..., None] * p for w, p in zip(weights, corners)])


def decoder(image: tf.Tensor) -> tf.Tensor:
    x = image - 0.5
    h = conv(conv(conv(x, 32, stride=2), 64, stride=2), 128, stride=2)
    h = dense(tf.reshape(h, [-1, 50 * 50 * 128]), 128)
    theta = tf.matmul(h, tf.zeros([128, 6])) + tf.constant([1.0, 0, 0, 0, 1, 0])
    x = tf.reshape(spatial_transform(x, theta), [-1, SIZE, SIZE, 3])
    for out, stride in ((32, 2), (32, 1), (64, 2), (64, 1), (64, 2), (128, 2), (128, 2)):
        x = conv(x, out, stride=stride)
    x = dense(tf.reshape(x, [-1, 13 * 13 * 128]), 512)
    return tf.round(tf.sigmoid(dense(x, BITS, relu=False)))


def main() -> None:
    threads = int(sys.argv[1])
    tf.disable_eager_execution()
    image = tf.placeholder(tf.float32, [None, SIZE, SIZE, 3])
    secret = tf.placeholder(tf.float32, [None, BITS])
    outputs = {"encode": encoder(image, secret), "decode": decoder(image)}
    session = tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads))
    pictures = rng.random((4, SIZE, SIZE, 3), np.float32)
    bits = rng.integers(0, 2, (4, BITS)).astype(np.float32)
    print(tf.__version__, flush=True)
    for line in sys.stdin:
        name, batch = line.split()
        feed = {image: pictures[: int(batch)]} | ({secret: bits[: int(batch)]} if name == "encode" else {})
        began = time.perf_counter()
        session.run(outputs[name], feed)
        print((time.perf_counter() - began) * 1e3, flush=True)


if __name__ == "__main__":
    main()
