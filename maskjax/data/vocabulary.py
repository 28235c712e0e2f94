"""Vocabularies: text to ids and back, and which ids continue a word."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from maskjax.errors import UserError

BYTES = "bytes"
KINDS = ("wordpiece", "bpe")
PAD, UNKNOWN, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What the pieces of byte-level and SentencePiece vocabularies begin a word with.
_STARTS = ("\u0120", "\u2581")
_CONTINUES = "##"  # what WordPiece continues one with


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and tables of its ids.

    Attributes:
      name: file or built-in name, for messages.
      tokens: the name of every id.
      shown: every id as reports draw it: without the marks of a word's begin or continuation.
      joins_left: bool [V]: the id continues the word of the id before it, ...
      joins_right: bool [V]: ... if that one can be continued. Special tokens are words alone.
    """

    name: str
    tokens: tuple[str, ...]
    shown: tuple[str, ...]
    joins_left: np.ndarray
    joins_right: np.ndarray
    _tokenizer: Any

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without special tokens."""
        if self._tokenizer is None:
            return [byte + len(SPECIAL_TOKENS) for byte in text.encode()]
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Returns the text of ids, without special tokens."""
        if self._tokenizer is None:
            given = (i - len(SPECIAL_TOKENS) for i in ids)
            return bytes(i for i in given if i >= 0).decode(errors="replace")
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def id(self, token: str) -> int:
        """Returns the id of a token.

        Raises:
          UserError: there is no such token.
        """
        if token not in self._numbers:
            raise UserError(
                f"The tokenizer '{self.name}' has no token '{token}': name one that it has in "
                "data.inputs, or train a tokenizer with `python -m maskjax.tokenizer`."
            )
        return self._numbers[token]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}


def load_vocabulary(name: str) -> Vocabulary:
    """Returns the vocabulary of a tokenizer; each file is read once in a process.

    Args:
      name: "bytes" (UTF-8 bytes after the five special tokens, 261 ids; needs no file), or the
        path of a JSON file of the library `tokenizers`.

    Raises:
      UserError: there is no such file, it cannot be read, or `tokenizers` is not installed.
    """
    if name == BYTES:
        return _byte_vocabulary()
    path = os.path.abspath(os.path.expanduser(name))
    if not os.path.isfile(path):
        raise UserError(
            f"There is no tokenizer '{name}': give the path of a tokenizers JSON file, train one "
            f"with `python -m maskjax.tokenizer --out={name} FILES...`, or write '{BYTES}'."
        )
    return _json_vocabulary(path)


@functools.cache
def _byte_vocabulary() -> Vocabulary:
    letters = [chr(i) if 32 <= i < 127 else "\u00b7" for i in range(256)]
    tokens = (*SPECIAL_TOKENS, *(f"<{i:02X}>" for i in range(256)))
    # Letters and digits make words, as do the bytes of characters outside ASCII.
    inside = [i >= 128 or chr(i).isalnum() for i in range(256)]
    joins = np.array([False] * len(SPECIAL_TOKENS) + inside)
    return Vocabulary(BYTES, tokens, (*SPECIAL_TOKENS, *letters), joins, joins, None)


@functools.cache
def _json_vocabulary(path: str) -> Vocabulary:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise UserError(
            "Tokenizers in files need the library tokenizers: run `pip install tokenizers`, or "
            f"use the tokenizer '{BYTES}'."
        ) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"'{path}' is not a file of the library tokenizers: {error}.") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    special = {
        added["id"] for added in json.loads(tokenizer.to_str())["added_tokens"] if added["special"]
    }
    tokens = tuple(tokenizer.id_to_token(i) or "" for i in range(tokenizer.get_vocab_size()))
    marked = any(token.startswith(_STARTS) for token in tokens)

    def joins_left(i: int) -> bool:
        if marked:
            return not tokens[i].startswith(_STARTS) and tokens[i][:1].isalnum()
        return tokens[i].startswith(_CONTINUES)

    ordinary = np.array([i not in special for i in range(len(tokens))])
    left = np.array([joins_left(i) for i in range(len(tokens))]) & ordinary
    shown = tuple(_shown(token, tokenizer, i, marked) for i, token in enumerate(tokens))
    return Vocabulary(path, tokens, shown, left, ordinary, tokenizer)


def _shown(token: str, tokenizer: Any, number: int, marked: bool) -> str:
    if token.startswith(_CONTINUES):
        return token.removeprefix(_CONTINUES)
    if marked and (text := tokenizer.decode([number], skip_special_tokens=False).strip()):
        return text
    return token


def train_vocabulary(texts: Iterable[str], out: str, size: int, kind: str) -> int:
    """Trains a tokenizer and writes it as a JSON file; returns the number of its tokens.

    Args:
      texts: what to train on.
      out: the file.
      size: number of tokens, special ones included; small texts give fewer.
      kind: "wordpiece" (lower case, as BERT's) or "bpe" (of bytes, as GPT-2's).

    Raises:
      UserError: the library is missing, or the file cannot be written.
    """
    if kind not in KINDS:
        raise UserError(f"kind must be one of {', '.join(KINDS)}, not '{kind}'.")
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ModuleNotFoundError:
        raise UserError("Training a tokenizer needs `pip install tokenizers`.") from None
    options: dict[str, Any] = dict(
        vocab_size=size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    tokenizer.train_from_iterator(texts, trainer)
    try:
        tokenizer.save(out)
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"'{out}' cannot be written: {error}.") from None
    return tokenizer.get_vocab_size()
