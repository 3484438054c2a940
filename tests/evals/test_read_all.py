"""Eight thousand pictures that no single one can stop, read once."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from evals.readers import PictureError, Reader, ReaderError, ReadLine, ReadPicture, read_all
from evals.readers.cache import Found, ReadCache

WHOLE = ((0, 0), (1, 0), (1, 1), (0, 1))
NOTHING = np.full((8, 12, 3), 255, np.uint8)


def strings(lines):
    return [found.string for found in lines]


class Echo(Reader):
    """Reads the value of the first pixel, and counts how often it had to."""

    name = "echo"

    def __init__(self, *, dies_at=None, fails_at=None, version="1"):
        self.dies_at, self.fails_at, self.version, self.reads = dies_at, fails_at, version, 0

    @property
    def identity(self):
        return {"engine": "echo", "version": self.version}

    def read(self, picture):
        value = int(picture[0, 0, 0])
        self.reads += 1
        if value == self.dies_at:
            os._exit(3)
        if value == self.fails_at:
            raise PictureError("the echo is lost")
        return [ReadLine(f"{value} word", (0.0, 0.0, 12.0, 8.0), 0.5)]


def filled(value):
    return np.full((8, 12, 3), value, np.uint8)


@pytest.fixture
def pictures(tmp_path):
    """Five ways to hand in a picture, the fourth and fifth of which cannot be opened."""
    Image.fromarray(filled(7)).save(tmp_path / "seven.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return [
        tmp_path / "seven.png", filled(8), functools.partial(filled, 9),
        tmp_path / "broken.png", str(tmp_path / "missing.png"),
        np.zeros((4, 4), np.float32), filled(13), filled(14),
    ]  # fmt: skip


def words_of(results):
    return [" ".join(strings(result.lines)) for result in results]


@pytest.mark.parametrize("num_processes", [0, 2])
def test_no_picture_stops_the_others(pictures, num_processes):
    reader = Echo(fails_at=13)
    results = read_all(reader, pictures, num_processes=num_processes, progress=False)
    assert words_of(results) == ["7 word", "8 word", "9 word", "", "", "", "", "14 word"]
    assert results[0] == ReadPicture((ReadLine("7 word", (0, 0, 12, 8), 0.5),), (12, 8))
    problems = [result.problem for result in results]
    assert [bool(problem) for problem in problems] == [False] * 3 + [True] * 4 + [False]
    assert "broken.png is not read: it cannot be opened" in problems[3]
    assert "missing.png is not read: it cannot be opened" in problems[4]
    assert "picture 5 is not read: it cannot be opened (it is float32 [4, 4]" in problems[5]
    assert problems[6] == "picture 6 is not read: the echo is lost" and results[6].size_px == (
        12,
        8,
    )
    assert reader.reads == (0 if num_processes else 5)  # others read, or it did


def test_what_is_transparent_is_white_and_turned_pictures_stand_upright(tmp_path):
    Image.new("RGBA", (12, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    turned = Image.new("RGB", (8, 12), "black")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    clear, upright = read_all(
        Echo(), [tmp_path / "clear.png", tmp_path / "turned.jpg"], progress=False
    )
    assert words_of([clear]) == ["255 word"] and upright.size_px == (12, 8)


def test_what_was_read_is_not_read_again(pictures, tmp_path):
    cache = tmp_path / "cache"
    first = read_all(Echo(fails_at=13), pictures, cache=cache, progress=False)
    again = Echo()
    second = read_all(again, pictures, cache=cache, progress=False)
    assert second[:6] == first[:6] and second[7] == first[7]
    assert again.reads == 1 and words_of(second)[6] == "13 word"  # a failure is not kept
    other = Echo(version="2")
    read_all(other, pictures, cache=cache, progress=False)
    assert other.reads == 5
    quads = [(WHOLE, WHOLE)] * len(pictures)
    cropped = read_all(again, pictures, quads=quads, cache=cache, progress=False)
    assert again.reads == 1 + 2 * 5
    assert cropped[1] == ReadPicture((), (12, 8), ("8 word", "8 word"))
    assert read_all(again, pictures, quads=quads, cache=cache, progress=False) == cropped
    assert again.reads == 1 + 2 * 5
    with pytest.raises(ValueError, match="8 pictures have 1 tuples of quads"):
        read_all(again, pictures, quads=quads[:1])


def test_a_cache_of_many_writers_is_whole_and_a_broken_file_is_read_again(tmp_path):
    cache = ReadCache(tmp_path, Echo())
    key = cache.key(NOTHING, None)
    assert cache.get(key) is None
    assert key != cache.key(NOTHING.reshape(12, 8, 3), None)
    assert len({cache.key(NOTHING, q) for q in (None, (), (WHOLE,))}) == 3
    found = Found((ReadLine("Größe 全场", (1.5, 2.0, 40.0, 20.0), 0.1),), ("a", ""))

    def write_and_look(_):
        ReadCache(tmp_path, Echo()).put(key, found)
        return cache.get(key)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write_and_look, range(200))) == {found}
    (path,) = (p for p in tmp_path.rglob("*.json") if p.name != "identity.json")
    assert not list(tmp_path.rglob("*.part"))
    path.write_text(path.read_text()[:20])
    assert cache.get(key) is None


def test_a_process_that_dies_is_one_sentence_and_what_was_read_is_kept(tmp_path):
    pictures = [filled(i) for i in range(20)]
    with pytest.raises(ReaderError, match=r"a reading process died at or soon after picture \d+"):
        read_all(Echo(dies_at=15), pictures, cache=tmp_path, num_processes=2, progress=False)
    reader = Echo()
    results = read_all(reader, pictures, cache=tmp_path, progress=False)
    assert words_of(results) == [f"{i} word" for i in range(20)] and reader.reads < 20


def test_few_pictures_are_in_memory_at_once():
    alive, most = set(), 0

    def draw(i):
        nonlocal most
        alive.add(i)
        most = max(most, len(alive))
        return filled(i)

    class Forgets(Echo):
        def read(self, picture):
            alive.discard(int(picture[0, 0, 0]))
            return super().read(picture)

    read_all(Forgets(), [functools.partial(draw, i) for i in range(50)], progress=False)
    assert most == 1
