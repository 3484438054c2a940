"""The code cache: records come back, work that was cut short goes on, and damage has a name."""

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train import coding_toys as toys
from train.data.codes import CacheError, ContractError, open_cache, open_caches, verify
from train.data.encoding import encode, read_back


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A cache made by one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    assert encode(toys.job(folder)) == open_cache(folder).header
    return folder


@pytest.fixture
def copy(calm, tmp_path):
    for name, data in toys.contents(calm).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_records_come_back(calm):
    cache, source = open_cache(calm), toys.Coloured(23)
    assert len(cache) == 23 and [s.num_records for s in cache.shards] == [5, 6, 6, 6]
    assert [cache.shard_of(i).name[6:11] for i in (0, 4, 5, 22)] == [
        "00000",
        "00000",
        "00001",
        "00003",
    ]
    cache[3]  # an open file does not travel, and the cache that was sent opens its own
    again = pickle.loads(pickle.dumps(cache))
    for index in range(23):
        wanted, record = source[index], again[index]
        assert record["prompt"] == wanted["prompt"] and record["blueprint"] == wanted["blueprint"]
        pictures = (wanted["pixels"], toys.canonical(wanted["blueprint"]))
        for name, picture in zip(("codes", "glyph_codes"), pictures, strict=True):
            assert record[name].dtype == np.uint8
            np.testing.assert_array_equal(record[name], toys.encoded(picture[None])[0])
    assert len(list(cache)) == 23
    with pytest.raises(IndexError, match="has 23 records, and none at 23"):
        cache[23]


def test_what_was_read_back_is_noted(calm):
    checked = open_cache(calm).header["checked"]
    assert checked["codes_equal"] == 1.0
    assert checked["records"] == [1, 4, 7, 10, 12, 15, 18, 21]
    pages = np.stack([toys.Coloured(23)[i]["pixels"] for i in checked["records"]])
    error = np.mean(np.square(pages - toys.decoded(toys.encoded(pages)).astype(float)))
    assert checked["psnr_db"] == round(10 * np.log10(255**2 / error), 2)


def test_large_codebooks_take_more_bytes(tmp_path):
    coder = dataclasses.replace(toys.CODER, contract={**toys.CONTRACT, "codebook_size": 257})
    encode(toys.job(tmp_path, coder=coder))
    assert open_cache(tmp_path)[0]["codes"].dtype == np.uint16


def start(folder, page_s, process_index=0, num_processes=1):
    arguments = map(str, (folder, page_s, process_index, num_processes))
    command = [sys.executable, str(Path(toys.__file__)), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_killed_and_shared_work_ends_in_the_same_bytes(calm, tmp_path):
    process = start(tmp_path, 0.05)
    first, draft = (tmp_path / f"codes-0000{k}-of-00004.array_record" for k in (0, 1))
    draft, deadline = draft.with_name(draft.name + ".part"), time.time() + 120
    while not draft.exists() and time.time() < deadline:
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and draft.exists()
    assert not (tmp_path / "cache.json").exists()
    kept = first.stat()
    both = [start(tmp_path, 0, k, 2) for k in (0, 1)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err[-2000:]
    assert toys.contents(tmp_path) == toys.contents(calm)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_the_header_waits_for_the_last_process(calm, tmp_path):
    job = toys.job(tmp_path)
    assert encode(job, process_index=1, num_processes=3) is None
    assert encode(job, process_index=2, num_processes=3) is None
    with pytest.raises(FileNotFoundError, match="holds no finished code cache"):
        open_cache(tmp_path)
    assert encode(job, process_index=0, num_processes=3) == open_cache(calm).header
    assert toys.contents(tmp_path) == toys.contents(calm)
    with pytest.raises(ValueError, match="process 3 is not one of 0 to 2"):
        encode(job, process_index=3, num_processes=3)


OTHER = {
    "weights: 'abc' there, 'xyz' here": {
        "coder": dataclasses.replace(toys.CODER, contract={**toys.CONTRACT, "weights": "xyz"})
    },
    "data.name: 'toys' there, 'cars' here": {"name": "cars"},
    "num_shards: 4 there, 3 here": {"num_shards": 3},
    "(sample_sha256: ": {"source": toys.Coloured(23, word="K8")},
}


@pytest.mark.parametrize("message", OTHER)
def test_other_codes_or_pages_are_refused(copy, message):
    before = toys.contents(copy)
    with pytest.raises(ContractError, match="give another --out, or remove that folder") as told:
        encode(toys.job(copy, **OTHER[message]))
    assert message in str(told.value) and toys.contents(copy) == before
    (copy / "cache.json").unlink()  # nor may unfinished work go on
    with pytest.raises(ContractError, match="was begun with another tokenizer or other data"):
        encode(toys.job(copy, **OTHER[message]))


def flip(path):
    data = bytearray(path.read_bytes())
    record = data.index(b"\x28\xb5\x2f\xfd")  # where the first record's zstd frame begins
    data[record + 20] ^= 1
    path.write_bytes(data)


def test_damage_is_found_by_name_and_mended(calm, copy):
    names = [shard.name for shard in open_cache(copy).shards]
    (copy / names[1]).write_bytes((copy / names[1]).read_bytes()[:-1])
    (copy / names[3]).unlink()
    with pytest.raises(CacheError, match=f"{names[1]} has 131071 bytes.*{names[3]} is missing"):
        open_cache(copy)
    encode(toys.job(copy))
    assert toys.contents(copy) == toys.contents(calm)
    flip(copy / names[2])
    cache = open_cache(copy)  # sizes alone are looked at
    with pytest.raises(CacheError, match=f"{names[2]} has other bytes than were written"):
        verify(copy)
    with pytest.raises(CacheError, match=rf"{names[2]} is damaged at record 11 "):
        cache[11]
    encode(toys.job(copy))
    assert toys.contents(copy) == toys.contents(calm) and verify(copy) == cache.header


def test_reading_back_finds_wrong_records(calm):
    cache = open_cache(calm)
    assert read_back(toys.job(calm), cache) == cache.header["checked"]
    darker = dataclasses.replace(toys.CODER, encode=lambda pixels: toys.encoded(pixels // 2))
    with pytest.raises(CacheError, match=r"record 1 .*codes-00000-of-.* of its page's codes"):
        read_back(toys.job(calm, coder=darker), cache)
    with pytest.raises(CacheError, match=r"record 1 of the cache.* is of another page"):
        read_back(toys.job(calm, source=toys.Coloured(23, word="K8")), cache)


def test_caches_that_do_not_fit_are_refused(calm, copy):
    header = json.loads((copy / "cache.json").read_text())
    assert [len(cache) for cache in open_caches([calm, copy])] == [23, 23]
    header["contract"]["weights"] = "xyz"
    (copy / "cache.json").write_text(json.dumps(header))
    with pytest.raises(ContractError, match=r"codes of another tokenizer \(weights: 'xyz' there"):
        open_caches([calm, copy])
    del header["version"]
    (copy / "cache.json").write_text(json.dumps(header))
    with pytest.raises(CacheError, match="a code cache of format None, and this Letterpress reads"):
        open_caches([copy])


def test_mistakes_are_told_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="has 22 records, which do not make 23 in 4 shards"):
        toys.job(tmp_path, source=toys.Coloured(22))
    larger = dataclasses.replace(toys.CODER, contract={**toys.CONTRACT, "grid": [4, 4]})
    with pytest.raises(ValueError, match=r"pages of 32 x 16 px .* takes 32 x 32: set data.page"):
        toys.job(tmp_path, coder=larger)
    fewer = dataclasses.replace(toys.CODER, encode=lambda pixels: toys.encoded(pixels)[..., :2])
    with pytest.raises(ValueError, match=r"codes \(4, 2, 2\) of a page, and its contract has"):
        encode(toys.job(tmp_path, coder=fewer))
    assert not (tmp_path / "cache.json").exists()


def test_pages_that_workers_draw_make_the_same_files(calm, tmp_path):
    encode(toys.job(tmp_path), num_workers=2)
    assert toys.contents(tmp_path) == toys.contents(calm)
