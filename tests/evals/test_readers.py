"""Rows read from left to right, engines that say who they are, and answers that are checked."""

import http.server
import json
import re
import shutil
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from blueprint.typeset import PLAIN_FONT, load_font
from evals.readers import (
    READERS,
    BestOfBoth,
    CommandReader,
    HttpReader,
    PictureError,
    RapidReader,
    Reader,
    ReaderError,
    ReadLine,
    TesseractReader,
    open_reader,
    reading_order,
    rectified,
)
from evals.readers.lines import joined

WHOLE = ((0, 0), (1, 0), (1, 1), (0, 1))
NOTHING = np.full((8, 12, 3), 255, np.uint8)


def line(string, left, top, *, width=40, height=20, confidence=1.0):
    return ReadLine(string, (left, top, width, height), confidence)


def strings(lines):
    return [found.string for found in lines]


def program(tmp_path, body, name="reader"):
    """A Python program of this body, on its own."""
    path = tmp_path / name
    path.write_text(f"#!{sys.executable} -S\n{body}")
    path.chmod(0o755)
    return path


class Canned(Reader):
    """Always reads the same."""

    def __init__(self, engine, lines, crops=()):
        self.name, self.lines, self.crops = engine, lines, crops

    @property
    def identity(self):
        return {"engine": self.name}

    def read(self, picture):
        return self.lines

    def read_crops(self, picture, quads):
        return list(self.crops[: len(quads)])


@pytest.fixture(scope="module")
def rapid():
    return RapidReader()


@pytest.fixture(scope="module")
def poster():
    page = Image.new("RGB", (256, 128), "#fed")
    draw, font = ImageDraw.Draw(page), load_font(PLAIN_FONT, 24)
    draw.text((16, 16), "Hembtar", "#124", font)
    draw.text((128, 76), "K49 Olive", "#124", font)
    return np.asarray(page)


def test_words_of_a_row_are_read_from_left_to_right():
    row = [line("Sale", 80, 10), line("Big", 10, 11), line("today", 150, 9.5)]
    below = [line("only", 90, 40), line("now", 140, 39)]
    assert strings(reading_order([*below, *row])) == ["Big", "Sale", "today", "only", "now"]


def test_a_tall_title_does_not_draw_the_lines_beside_it_together():
    found = [line("low", 110, 42), line("TALL", 0, 0, height=60), line("high", 120, 2)]
    assert strings(reading_order(found)) == ["TALL", "high", "low"]


def test_ideographs_are_joined_without_blanks():
    assert joined(["全", "场", "50%", "off", "", "折", "。"]) == "全场 50% off 折。"
    assert joined(["한국", "말"]) == "한국 말"


def test_a_quad_is_pulled_straight():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    part = rectified(noise, ((0.1, 0.25), (0.5, 0.25), (0.5, 0.75), (0.1, 0.75)))
    np.testing.assert_array_equal(part, noise[10:30, 6:30])
    turned = rectified(noise, ((1, 0), (1, 1), (0, 1), (0, 0)))  # it begins at the top right
    np.testing.assert_array_equal(turned, np.rot90(noise))
    beyond = rectified(noise, ((-1, -1), (2, -1), (2, 2), (-1, 2)))
    np.testing.assert_array_equal(beyond, noise)


def test_a_slanted_quad_is_seen_from_the_front():
    corners = [(30, 10), (170, 40), (160, 90), (20, 60)]
    image = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(image).polygon(corners, fill="red")
    crop = rectified(np.asarray(image), tuple((x / 200, y / 100) for x, y in corners))
    assert crop.shape == (51, 143, 3)
    inside = crop[3:-3, 3:-3].reshape(-1, 3)
    assert (np.abs(inside.astype(int) - (255, 0, 0)) < 8).all()


def test_a_quad_of_nothing_is_nothing_and_three_corners_are_no_quad():
    assert rectified(NOTHING, ((0.5, 0.1), (0.5, 0.1), (0.5, 0.9), (0.5, 0.9))) is None
    assert rectified(NOTHING, ((0, 0), (1, 1), (0, 0), (1, 1))) is None
    with pytest.raises(ValueError, match="a quad has four corners"):
        rectified(NOTHING, WHOLE[:3])


def test_rapidocr_says_which_models_read(rapid):
    models = {k: v for k, v in rapid.identity.items() if k.endswith(".onnx")}
    assert {part for part in ("det", "rec", "cls") for k in models if part in k} == {
        "det", "rec", "cls",
    }  # fmt: skip
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in models.values())
    assert rapid.identity["enlarge_to_px"] == "512"
    alone = rapid.on_one_thread()
    assert alone.num_threads == 1 and alone.identity == rapid.identity
    assert RapidReader(enlarge_to_px=256).identity != rapid.identity


def test_rapidocr_reads_each_quad_alone(rapid, poster):
    quads = [
        ((0.48, 0.55), (0.98, 0.55), (0.98, 0.85), (0.48, 0.85)),
        ((0.05, 0.08), (0.50, 0.08), (0.50, 0.38), (0.05, 0.38)),
        ((0.3, 0.3), (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)),
    ]
    assert rapid.read_crops(poster, quads) == ["K49 Olive", "Hembtar", ""]
    on_end = np.ascontiguousarray(np.rot90(poster[68:108, 120:250], 3))  # lettered downwards
    assert rapid.read_crops(on_end, [WHOLE]) == ["K49 Olive"]


TSV = """level page_num block_num par_num line_num word_num left top width height conf text
1 1 0 0 0 0 0 0 1200 512 -1 
5 1 2 1 1 1 600 100 80 60 90.0 Sale
5 1 1 1 1 1 100 104 60 56 80.0 Big
5 1 1 1 1 2 180 100 120 60 95.0 Deal"""

FAKE = f"""
import sys
if "--version" in sys.argv:
    print("tesseract 5.9.9")
elif "--list-langs" in sys.argv:
    print('List of available languages in "FOLDER" (2):\\neng\\nchi_sim')
else:
    png = sys.stdin.buffer.read()
    if not png.startswith(b"\\x89PNG") or sys.argv[1:4] != ["stdin", "stdout", "-l"]:
        sys.exit("no picture")
    if "chi_sim" in sys.argv:
        sys.exit("Error: it broke")
    print({TSV!r}.replace(" ", "\\t"))
"""


def test_tesseract_is_read_through_its_table(tmp_path):
    (tmp_path / "eng.traineddata").write_bytes(b"a model")
    fake = str(program(tmp_path, FAKE.replace("FOLDER", str(tmp_path)), "tesseract"))
    reader = TesseractReader(program=fake, enlarge_to_px=16)  # twice as large
    big, sale = reader.read(NOTHING)
    assert (big.string, sale.string) == ("Big Deal", "Sale")
    assert big.box_px == (50, 50, 100, 30)
    assert big.confidence == pytest.approx((3 * 0.80 + 4 * 0.95) / 7)
    assert reader.name == "tesseract 5.9.9 eng"
    assert re.fullmatch("[0-9a-f]{16}", reader.identity["eng.traineddata"])
    assert str(tmp_path) not in str(reader.identity)
    broken = TesseractReader("chi_sim", program=fake)
    assert broken.identity["chi_sim.traineddata"] == "unknown"
    with pytest.raises(PictureError, match="tesseract failed with status 1: Error: it broke"):
        broken.read(NOTHING)
    with pytest.raises(ReaderError, match=r"no language deu \(it has eng, chi_sim\); install it"):
        TesseractReader("eng+deu", program=fake)


def test_a_missing_tesseract_names_the_remedy():
    with pytest.raises(ReaderError, match=r"'tesserakt' is not on the PATH; install Tesseract"):
        TesseractReader(program="tesserakt")


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="Tesseract is not installed")
def test_the_real_tesseract_reads(poster):
    reader = TesseractReader()
    assert reader.words(poster) == ["Hembtar", "K49", "Olive"]
    left, top, width, height = reader.read(poster)[0].box_px
    assert abs(left - 16) < 4 and 14 < top < 28 and 70 < width < 120 and 12 < height < 30
    assert reader.identity["eng.traineddata"] != "unknown"
    thin = ((0, 0.5), (1, 0.5), (1, 0.51), (0, 0.51))
    right = ((0.4, 0.5), (1, 0.5), (1, 1), (0.4, 1))
    assert reader.read_crops(poster, [right, thin])[0] == "K49 Olive"
    strip = np.full((1, 2000, 3), 255, np.uint8)  # it would take minutes
    assert reader.read_crops(strip, [WHOLE]) == [""]


def test_of_each_line_the_surer_reading_stays():
    first = [
        line("Blg Day", 0, 0, confidence=0.3), line("alone", 0, 90, confidence=0.1),
        line("good", 0, 30, confidence=0.9), line("whole line", 0, 60, confidence=0.5),
    ]  # fmt: skip
    second = [
        line("Big Day", 3, 2, confidence=0.8), line("goad", 0, 31, confidence=0.9),
        line("whale", 0, 60, width=18, confidence=0.7),
        line("lime", 20, 61, width=18, confidence=0.6),
        line("sure", 100, 0, confidence=0.9), line("dust", 100, 60, confidence=0.7),
    ]  # fmt: skip
    both = BestOfBoth(Canned("a", first), Canned("b", second))
    assert strings(both.read(NOTHING)) == ["Big Day", "sure", "good", "whale", "lime", "alone"]


def test_a_part_of_a_line_does_not_stand_for_it():
    first = [line("Everything must go", 0, 0, width=200, confidence=0.6)]
    second = [line("must", 90, 0, confidence=1.0)]
    assert strings(BestOfBoth(Canned("a", first), Canned("b", second)).read(NOTHING)) == [
        "Everything must go"
    ]


def test_confidences_are_compared_as_chances_to_be_right():
    # By their own words rapidocr is the surer; but its 0.93 is right less often.
    rapid = Canned("rapidocr", [line("He11o", 0, 0, confidence=0.93)], ("", "x"))
    tess = Canned("tesseract", [line("Hello", 0, 0, confidence=0.92)], ("found", "y"))
    both = BestOfBoth(rapid, tess)
    (found,) = both.read(NOTHING)
    assert found.string == "Hello" and found.confidence == pytest.approx(0.70 + 0.16 * 45 / 55)
    assert both.read_crops(NOTHING, [WHOLE, WHOLE]) == ["found", "x"]
    assert both.identity["first_engine"] == "rapidocr"
    assert BestOfBoth(tess, rapid).identity != both.identity


COMMAND = """
import json, sys
if not open(sys.argv[-1], "rb").read().startswith(b"\\x89PNG"):
    sys.exit("no picture")
print(json.dumps({"text": "day", "box": [20, 1, 9, 9], "confidence": 0.25}))
print()
print(json.dumps({"text": "Big", "box": [1, 0, 9, 9]}))
"""


def test_a_command_is_a_reader(tmp_path):
    path = program(tmp_path, COMMAND)
    reader = open_reader(f"command:{path} --fast {{}}")
    assert reader.read(NOTHING) == [
        ReadLine("Big", (1, 0, 9, 9), 1.0), ReadLine("day", (20, 1, 9, 9), 0.25),
    ]  # fmt: skip
    assert reader.words(NOTHING) == CommandReader(str(path)).words(NOTHING) == ["Big", "day"]
    before = reader.identity
    path.write_text(path.read_text() + "\n")
    assert CommandReader(reader.command).identity != before


def test_a_command_without_boxes_keeps_its_order(tmp_path):
    body = """print('{"text": "b"}\\n{"text": "a", "box": [0, 0, 1, 1]}')"""
    reader = CommandReader(str(program(tmp_path, body)))
    assert [(x.string, x.box_px) for x in reader.read(NOTHING)] == [
        ("b", (0, 0, 12, 8)), ("a", (0, 0, 1, 1)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys; sys.exit('no memory')", "failed with status 1: no memory"),
        ("print('Sure! It says Big')", "answered with what is no JSON: 'Sure! It says Big'; a"),
        ('print(\'{"txt": "Big"}\')', 'answered {"txt": "Big"}, but a line is {"text": "Big'),
        ("print('7')", "answered 7, but a line is"),
        ("print('{\"text\": 7}')", 'answered {"text": 7}, but a line is'),
        ("import time; time.sleep(20)", "did not finish within 0.2 s"),
    ],
)
def test_a_command_that_fails_fails_for_the_picture(tmp_path, body, said):
    reader = CommandReader(str(program(tmp_path, body)), timeout_s=0.2 if "sleep" in body else 20)
    with pytest.raises(PictureError, match=re.escape(said)):
        reader.read(NOTHING)


@pytest.fixture
def server(monkeypatch):
    """An address, the answers it will give in turn (status, body), and what it was sent."""
    answers, sent = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answers.pop(0)
            if status == 0:
                time.sleep(0.5)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            """Say nothing."""

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/ocr", answers, sent
        running.shutdown()
        thread.join()


def test_a_server_is_a_reader(server):
    url, answers, sent = server
    lines = [{"text": "day", "box": [20, 0, 9, 9]}, {"text": "Big", "box": [1, 0, 9, 9]}]
    answers += [(200, json.dumps(lines)), (200, json.dumps({"lines": lines})), (200, "[]")]
    reader = open_reader(url)
    assert reader.words(NOTHING) == reader.words(NOTHING) == ["Big", "day"]
    assert reader.words(NOTHING) == []
    assert sent[0].startswith(b"\x89PNG")


def test_a_busy_server_is_asked_again(server):
    url, answers, sent = server
    answers += [(503, ""), (0, ""), (200, '[{"text": "Big"}]')]
    assert HttpReader(url, pause_s=0.01, timeout_s=0.2).words(NOTHING) == ["Big"]
    assert len(sent) == 3


def test_what_a_server_does_wrong_is_said(server):
    url, answers, sent = server
    reader = HttpReader(url, num_retries=1, pause_s=0.01)
    answers += [(404, ""), (413, ""), (200, "{}"), (200, "<html>"), (500, ""), (500, "")]
    with pytest.raises(ReaderError, match="answered with status 404 Not Found; check the address"):
        reader.read(NOTHING)
    for said in ("refused the picture: status 413", "neither a list of lines", "what is no JSON"):
        with pytest.raises(PictureError, match=said):
            reader.read(NOTHING)
    with pytest.raises(ReaderError, match=r"did not answer 2 times \(status 500"):
        reader.read(NOTHING)
    assert len(sent) == 6


def test_an_address_keeps_its_secrets():
    reader = HttpReader("http://127.0.0.1:9/ocr?key=s3cret")
    assert "s3cret" not in reader.name + str(reader.identity)
    assert reader.identity != HttpReader("http://127.0.0.1:9/ocr?key=other").identity
    with pytest.raises(ReaderError, match="without a name or password"):
        HttpReader("http://me:s3cret@127.0.0.1/ocr")


def test_readers_are_opened_by_name(rapid):
    assert open_reader("rapidocr").identity == rapid.identity
    for spec in ("rapidocr:en", "tesseract:", "command:", "http:here", "trocr", ""):
        with pytest.raises(ReaderError, match=re.escape(f"no reader {spec!r}; the choices are")):
            open_reader(spec)
    with pytest.raises(ReaderError) as told:
        open_reader("trocr")
    assert all(name in str(told.value) for name in READERS)
    with pytest.raises(ReaderError, match="names no program that can be run"):
        open_reader("command:no-such-program-here")
