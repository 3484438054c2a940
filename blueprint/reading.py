"""How a prompt becomes ids: its UTF-8 bytes, or the pieces that a pretrained planner learnt.

Only the prompt is read so. What is planned stays in the ids of `vocab`, whose words are bytes: with
any reader a page is spelled letter by letter, under the same grammar and with the same quotes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path

from tokenizers import Tokenizer

from blueprint import vocab


@dataclasses.dataclass(frozen=True)
class PromptReader:
    """Reads with the `tokenizer.json` at `path` (the format of the library of that name), or bytes
    when that is "".

    Its id i is `vocab.SIZE + i` here. The marks that it would put around a text are left out:
    `<prompt>` and `<plan>` stand there. What it does not know may come out as nothing; quotes are
    taken from the prompt itself, so they are spelled all the same.
    """

    path: str = ""

    def ids(self, prompt: str) -> list[int]:
        """`<prompt>`, the prompt, `<plan>`: what the planner continues."""
        if not self.path:
            return vocab.encode_prompt(prompt)
        pieces = _open(self.path)[0].encode(prompt, add_special_tokens=False).ids
        return [vocab.token("prompt"), *(vocab.SIZE + i for i in pieces), vocab.token("plan")]

    @property
    def num_pieces(self) -> int:
        """One more than its greatest id; 0 for bytes, which are in the vocab."""
        if not self.path:
            return 0
        return 1 + max(_open(self.path)[0].get_vocab(with_added_tokens=True).values())

    @property
    def identity(self) -> str:
        """The SHA-256 of the file, "" for bytes: two readers of one identity read alike."""
        return _open(self.path)[1] if self.path else ""

    def require(self, *, prompt_vocab_size: int) -> None:
        """Raise `ValueError` unless a planner of that many prompt ids can take what is read."""
        need = self.num_pieces
        if need > prompt_vocab_size or bool(need) != bool(prompt_vocab_size):
            said = f"{self.path} has {need} ids" if need else "data.prompt_tokenizer reads bytes"
            raise ValueError(
                f"config.model.prompt_vocab_size is {prompt_vocab_size}, but {said}: "
                f"set it to {need}" + (" or more" if need else "")
            )

    def require_learnt(self, identity: str, *, where: str) -> None:
        """Raise `ValueError` unless what was learnt `where` reads by the same identity."""
        if identity != self.identity:
            named = [f"SHA-256 {i[:12]}" if i else "bytes" for i in (identity, self.identity)]
            raise ValueError(
                f"{where} learnt to read prompts by {named[0]}, and data.prompt_tokenizer in its "
                f"config.json, {self.path!r}, is {named[1]}: put the file it learnt by there"
            )


@functools.lru_cache(maxsize=8)
def _open(path: str) -> tuple[Tokenizer, str]:
    """The file's tokenizer and its SHA-256; raises `FileNotFoundError` or `ValueError` by name."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"config.data.prompt_tokenizer: there is no file {path}; give a tokenizer.json, "
            'or "" to read bytes'
        )
    data = Path(path).read_bytes()
    try:
        return Tokenizer.from_str(data.decode()), hashlib.sha256(data).hexdigest()
    except Exception as problem:  # the library raises nothing narrower
        raise ValueError(
            f"config.data.prompt_tokenizer: {path} is no tokenizer.json ({problem})"
        ) from None
