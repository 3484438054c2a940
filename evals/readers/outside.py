"""Readers that are not ours: a program that is handed a file, or a server that is handed a picture.

Both answer in JSON, a line of text an object, in reading order:

    {"text": "Big Day", "box": [left, top, width, height], "confidence": 0.93}

`box` is in pixels of the picture and may be left out, as vision-language models know none: the line
then stands for the whole picture, and the order of the answer is kept. `confidence`, from 0 to 1,
may be left out too and is then 1. A program prints one object a line, a server answers with a list
of them or with `{"lines": [...]}`. Nothing read is an answer without objects.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import io
import json
import math
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from evals.readers.lines import (
    Picture,
    PictureError,
    Reader,
    ReaderError,
    ReadLine,
    reading_order,
)

_FORMAT = '{"text": "Big Day", "box": [left, top, width, height], "confidence": 0.93}'
_BUSY = (429, 500, 502, 503, 504)  # statuses that may pass


class CommandReader(Reader):
    """A program that gets the path of a PNG, in the place of `{}` or else as its last argument, and
    prints JSON lines.

    Raises `ReaderError` when there is no such program.
    """

    def __init__(self, command: str, *, timeout_s: float = 120) -> None:
        self.command = command
        self.timeout_s = timeout_s
        self.name = f"command {command}"
        self._words = shlex.split(command)
        if not self._words or shutil.which(self._words[0]) is None:
            raise ReaderError(
                f"the reader {self.name!r} names no program that can be run; give its path, or put "
                "it on the PATH and make it executable"
            )

    @functools.cached_property
    def identity(self) -> Mapping[str, str]:
        """The command, and the contents of the program and of every file among its arguments."""
        program = shutil.which(self._words[0]) or self._words[0]
        files = [path for path in map(Path, (program, *self._words[1:])) if path.is_file()]
        digests = {path.name: _digest(path.read_bytes()) for path in files}
        return {"engine": "command", "command": self.command, **digests}

    def read(self, picture: Picture) -> list[ReadLine]:
        """Raises `PictureError` when the program fails, takes too long or prints something else."""
        with tempfile.TemporaryDirectory(prefix="letterpress-") as folder:
            path = str(Path(folder, "picture.png"))
            Image.fromarray(picture).save(path)
            words = [word.replace("{}", path) for word in self._words]
            command = words if words != self._words else [*words, path]
            try:
                done = subprocess.run(command, capture_output=True, timeout=self.timeout_s)
            except subprocess.TimeoutExpired as error:
                raise PictureError(
                    f"{self.name} did not finish within {self.timeout_s:g} s"
                ) from error
            except OSError as error:
                raise ReaderError(f"{self.name} cannot be run: {error}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().split("\n")[-1]
            raise PictureError(f"{self.name} failed with status {done.returncode}: {said}")
        printed = done.stdout.decode("utf-8", errors="replace").splitlines()
        objects = [_parsed(line, self.name) for line in printed if line.strip()]
        return _lines(objects, picture, self.name)


class HttpReader(Reader):
    """A server that gets a PNG as the body of a POST and answers in JSON.

    A server that does not answer, or says that it is busy, is asked `num_retries` times again,
    after 1, 2, 4 ... times `pause_s`. What model answers only the server knows: when it changes
    behind one address, take another folder for the cache.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 60, num_retries: int = 3, pause_s: float = 1.0
    ) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.num_retries = num_retries
        self.pause_s = pause_s
        try:
            parts = urlsplit(url)
            place = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
        except ValueError as error:
            raise ReaderError(f"the reader's address cannot be parsed: {error}") from error
        if parts.scheme not in ("http", "https") or not place or parts.username is not None:
            raise ReaderError(
                "an address of a reader is http://host:port/path, without a name or password"
            )
        # A query may hold a key: it decides what is read, but no report should show it.
        self._address = f"{parts.scheme}://{place}{parts.path}"
        self.name = f"http reader {self._address}"

    @property
    def identity(self) -> Mapping[str, str]:
        """The address; of its query only a digest."""
        return {"engine": "http", "url": self._address, "url_sha256": _digest(self.url.encode())}

    def read(self, picture: Picture) -> list[ReadLine]:
        """Raises `ReaderError` when the server does not answer or refuses, `PictureError` when its
        answer is something else than asked for."""
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        answer = _parsed(self._answer(png.getvalue()).decode("utf-8", "replace"), self.name)
        if isinstance(answer, dict):
            answer = answer.get("lines")
        if not isinstance(answer, list):
            raise PictureError(
                f'{self.name} answered with neither a list of lines nor {{"lines": [...]}}; '
                f"a line is {_FORMAT}"
            )
        return _lines(answer, picture, self.name)

    def _answer(self, png: bytes) -> bytes:
        failure = ""
        for attempt in range(self.num_retries + 1):
            if attempt:
                time.sleep(self.pause_s * 2 ** (attempt - 1))
            request = urllib.request.Request(
                self.url, png, {"Content-Type": "image/png", "Accept": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                    return response.read()
            except urllib.error.HTTPError as error:
                failure = f"status {error.code} {error.reason}"
                if error.code in (413, 422):
                    raise PictureError(f"{self.name} refused the picture: {failure}") from error
                if error.code not in _BUSY:
                    raise ReaderError(
                        f"{self.name} answered with {failure}; check the address, and that it takes"
                        " a PNG by POST"
                    ) from error
            except (OSError, http.client.HTTPException) as error:
                failure = str(error) or type(error).__name__
        raise ReaderError(
            f"{self.name} did not answer {self.num_retries + 1} times ({failure}); see that it "
            "runs, and start again: what was read is kept if there is a cache"
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PictureError(
            f"{name} answered with what is no JSON: {text[:80]!r}; a line is {_FORMAT}"
        ) from error


def _lines(objects: Sequence[Any], picture: Picture, name: str) -> list[ReadLine]:
    lines = [_line(value, picture, name) for value in objects]
    placed = all(value.get("box") is not None for value in objects)
    return reading_order(lines) if placed else lines


def _line(value: Any, picture: Picture, name: str) -> ReadLine:
    try:
        string, box, score = value["text"], value.get("box"), float(value.get("confidence", 1.0))
        if box is None:
            box = (0, 0, picture.shape[1], picture.shape[0])
        left, top, width, height = map(float, box)
        if not isinstance(string, str) or not all(
            map(math.isfinite, (left, top, width, height, score))
        ):
            raise ValueError
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PictureError(
            f"{name} answered {json.dumps(value)[:80]}, but a line is {_FORMAT}"
        ) from error
    return ReadLine(string, (left, top, width, height), score)
