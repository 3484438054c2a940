"""Our ids as a `tokenizer.json`, so that other libraries read a prompt as our planner does, and
show what it says.

A prompt becomes `<prompt>`, its bytes, `<plan>`. Ids that are no byte decode to their names, as in
`<v1><number:128>`; no text is taken for one of those, whatever it spells.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from blueprint import vocab
from train.export import ExportError

_OURS, _BESIDE_THEIRS = "<{}>", "<letterpress|{}>"


def _letters() -> list[str]:
    """A letter for each byte, as byte-level vocabularies since GPT-2 write them: its own where that
    is seen, and else the next from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    unseen = [byte for byte in range(256) if byte not in seen]
    return [chr(b if b in seen else 0x100 + unseen.index(b)) for b in range(256)]


def _names(frame: str) -> dict[str, int]:
    return {frame.format(vocab.name(token)): token for token in range(vocab.SIZE)}


def _framed(tokenizer: Tokenizer, frame: str) -> Tokenizer:
    """`<prompt>` before a text and `<plan>` after it."""
    before, after = (frame.format(name) for name in ("prompt", "plan"))
    marks = [(before, vocab.token("prompt")), (after, vocab.token("plan"))]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]  # its stubs
        single=f"{before} $A {after}", special_tokens=marks
    )
    return tokenizer


def of_bytes() -> Tokenizer:
    """The tokenizer of a planner that reads bytes."""
    names = _names(_OURS)
    for byte, letter in enumerate(_letters()):
        del names[_OURS.format(vocab.name(vocab.byte(byte)))]
        names[letter] = vocab.byte(byte)
    tokenizer = Tokenizer(models.BPE(names, []))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = level  # type: ignore[assignment]  # its stubs
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]  # its stubs
    return _framed(tokenizer, _OURS)


def after_ours(path: Path) -> Tokenizer:
    """A `tokenizer.json` that prompts are read with, its ids after ours, which have longer names
    here: `<letterpress|byte:41>`. Raises `ExportError` for one whose ids cannot be moved."""
    said = json.loads(Path(path).read_text())
    pieces = said["model"].get("vocab")
    if not isinstance(pieces, dict):
        kind = said["model"].get("type")
        raise ExportError(f"{path} is of the kind {kind}, whose ids cannot stand after ours")
    moved = {piece: vocab.SIZE + i for piece, i in pieces.items()}
    said["model"]["vocab"] = _names(_BESIDE_THEIRS) | moved
    for token in said.get("added_tokens", []):
        token["id"] += vocab.SIZE
    said |= {"post_processor": None, "padding": None}
    return _framed(Tokenizer.from_str(json.dumps(said)), _BESIDE_THEIRS)


def write(folder: Path, prompt_tokenizer: str = "") -> None:
    """`tokenizer.json` and what `AutoTokenizer` needs beside it, for a planner whose prompts are
    read with that file ("" for bytes)."""
    made = after_ours(Path(prompt_tokenizer)) if prompt_tokenizer else of_bytes()
    made.save(str(folder / "tokenizer.json"))
    frame = _BESIDE_THEIRS if prompt_tokenizer else _OURS
    names = {"pad_token": "pad", "bos_token": "prompt", "eos_token": "end"}
    beside: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        # in bytes `<end>` is five letters; another's marks are found in a text here as they are by
        # `blueprint.reading`
        "split_special_tokens": not prompt_tokenizer,
        **{name: frame.format(ours) for name, ours in names.items()},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(beside, indent=1) + "\n")
