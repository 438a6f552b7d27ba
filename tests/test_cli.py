"""`python -m pttp`: in processes of its own, as a person runs it. Starting torch takes seconds, so that one process gets many files."""
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

import pttp
from tests import corpus

ROOT = Path(__file__).parent.parent
QUIET = {"OMP_NUM_THREADS": "1"}  # on a machine that is busy with other tests, threads that wait for each other take many times as long as one


def run(*arguments, cwd: Path = ROOT, **environment) -> subprocess.CompletedProcess:
    """One process; every answer, good or bad, must come without a traceback."""
    command = [sys.executable, "-m", "pttp", *arguments]
    result = subprocess.run(command, capture_output=True, cwd=cwd, timeout=300, env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT), **environment})
    result.stdout, result.stderr = result.stdout.decode(), result.stderr.decode()
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A GhostNet folder with random weights: what it says is nonsense, and the same nonsense each time."""
    import torch
    from safetensors.torch import save_file

    from pttp.ghostnet.model import GhostNet

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ghostnet")
    net = GhostNet()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(16, 3, 96, 96) / 4 + torch.randn(16, 3, 1, 1))  # sets the batch norms' statistics; without them every picture gets the same answer
        net.classifier.weight *= 10
    save_file(net.state_dict(), folder / "model.safetensors")
    preprocess = {"size": 96, "crop": 1.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    (folder / "config.json").write_text(json.dumps({"num_classes": 1000, "width": 1.0, "preprocess": preprocess}))
    return folder


@pytest.fixture(scope="session")
def answered(cases, weights) -> tuple[subprocess.CompletedProcess, dict[str, dict]]:
    """One process over the whole corpus with --json, and its lines by name of the case."""
    result = run("classify", *(str(case.path) for case in cases.values()), "--json", "--top", "3", "--weights", str(weights))
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(case.path) for case in cases.values()]
    return result, dict(zip(cases, lines))


@pytest.mark.parametrize("name", corpus.GOOD)
def test_classify_good(answered, name):
    line = answered[1][name]
    assert set(line) == {"file", "names", "indices", "probabilities", "weights"}
    assert len(line["names"]) == len(set(line["indices"])) == 3
    assert 1 >= line["probabilities"][0] >= line["probabilities"][1] >= line["probabilities"][2] > 0


@pytest.mark.parametrize("name", corpus.BAD)
def test_classify_bad(answered, cases, name):
    result, lines = answered
    assert set(lines[name]) == {"file", "error"}
    assert cases[name].words in lines[name]["error"]
    assert f"{cases[name].path}: {lines[name]['error']}\n" in result.stderr


def test_one_bad_file_does_not_stop_the_others(answered):
    result, lines = answered
    assert result.returncode == 2
    assert {name for name, line in lines.items() if "error" in line} == set(corpus.BAD)


def test_json_says_what_python_says(answered, cases, weights):
    net = pttp.load("ghostnet", str(weights))
    assert len({tuple(line["indices"]) for line in answered[1].values() if "indices" in line}) > 5
    for name in ("plain.png", "exif6.jpg", "palette_transparent.png"):
        line = dict(answered[1][name])
        assert line.pop("file") == str(cases[name].path) and line.pop("weights") == net.weights.source
        expected = net.predict(cases[name].path, top=3).to_dict()
        assert line.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=2e-6)
        assert line == expected


def test_folder_in_words(cases, weights, tmp_path):
    """Names that the terminal cannot show are no reason to stop."""
    for name in ("b.png", "deep/日本.png", "deep/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(cases["plain.png"].path.read_bytes())
    result = run("classify", str(tmp_path), "--top", "2", "--weights", str(weights), PYTHONIOENCODING="latin-1")
    assert (result.returncode, result.stderr) == (0, "")
    files, answers = zip(*(line.rsplit(": ", 1) for line in result.stdout.splitlines()))
    assert files == (f"{tmp_path}/b.png", f"{tmp_path}/deep/" + r"\u65e5\u672c.png")
    assert answers[0] == answers[1] and re.fullmatch(r".+ \d+\.\d%, .+ \d+\.\d%", answers[0])


@pytest.mark.skipif(sys.platform != "linux", reason="a file name that is not UTF-8 needs a file system that allows it")
def test_name_that_is_not_utf8(cases, weights, tmp_path):
    file = os.fsencode(tmp_path) + b"/\xff.png"
    with open(file, "wb") as copy:
        copy.write(cases["plain.png"].path.read_bytes())
    result = run("classify", file, "--weights", str(weights))
    assert (result.returncode, result.stderr) == (0, "") and r"\udcff.png" in result.stdout


def test_progress_bar_on_a_terminal(cases, weights, tmp_path):
    pty = pytest.importorskip("pty", reason="pseudo-terminals are a Unix thing")
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(cases["plain.png"].path.read_bytes())
    ours, theirs = pty.openpty()
    shown = bytearray()

    def listen():
        try:
            while data := os.read(ours, 4096):
                shown.extend(data)
        except OSError:  # Linux says so when the other end is closed
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    command = [sys.executable, "-m", "pttp", "classify", str(tmp_path), "--json", "--weights", str(weights)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, timeout=300, env={**os.environ, **QUIET, "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    listener.join(30)
    os.close(ours)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 3
    assert all(json.loads(line)["names"] for line in result.stdout.splitlines())
    assert b"Classifying 3 pictures" in shown and b"0/3" in shown and b"3/3" in shown


def test_many_files_say_so_in_a_log(answered, cases):
    assert answered[0].stderr.startswith(f"Classifying {len(cases)} pictures\n")
    assert answered[0].stderr.count("\n") == 1 + len(corpus.BAD)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["classify", "{tmp}"], "There is no picture to work on"),
        (["classify", "x.png", "--weights", "{tmp}/nowhere.safetensors"], "nowhere.safetensors"),
        (["classify", "x.png", "--top", "0"], "--top"),
        (["classify", "x.png", "--top", "1001"], "--top"),
        (["classify", "x.png", "--top", "many"], "--top"),
        (["classify"], "Missing argument"),
        (["paint", "x.png"], "No such command"),
        (["serve", "--port", "70000"], "--port"),
    ],
)
def test_user_mistakes(tmp_path, arguments, words):
    result = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr


def test_links_are_not_followed(weights):
    result = run("classify", "https://example.org/cat.jpg", "--weights", str(weights))
    assert (result.returncode, result.stdout) == (2, "") and "download the picture first" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["classify", "--help"], ["serve", "-h"], ["weights", "--help"]])
def test_help_is_quick(arguments):
    code = "import sys; from pttp.cli import main\ntry: main()\nexcept SystemExit as end: sys.exit(end.code or 'torch' in sys.modules or 'numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "") and "Usage" in result.stdout and "--help" in result.stdout


def test_serve_starts_the_page():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = subprocess.Popen([sys.executable, "-m", "pttp", "serve", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert page.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        page.terminate()
        page.wait(30)


def test_serve_without_the_page(tmp_path):
    (tmp_path / "pttp").symlink_to(ROOT / "pttp")
    result = run("serve", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stdout) == (2, "") and "clone of the repository" in result.stderr
