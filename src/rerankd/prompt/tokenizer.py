"""Texts to token ids, such that no text from outside can become a control token.

Flags do not do it: ``add_special_tokens=False`` leaves added tokens recognised in the text, and
``encode_special_tokens=True`` skips only those marked special, which ``<think>`` is not in Qwen3, and is one
switch for all threads. So there are two tokenizers: the checkpoint's own encodes the template's control parts,
once, and is dropped; one without any added token encodes everything else.
"""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from tokenizers import Encoding, Tokenizer

from rerankd.checkpoint_files import MAX_TOKENIZER_BYTES
from rerankd.engine.base import HeadSpec
from rerankd.errors import ConfigurationError, InvalidRequest, ScoringError, TooLarge
from rerankd.files import json_object, read_text
from rerankd.prompt.normalizers import ascii_normalizer, grows_ascii
from rerankd.prompt.template import Control, Template, Text
from rerankd.types import IdArray

_MOST_GROWTH = 3
"""Characters that one may become when a text is normalised: NFC never makes more of it, NFKC up to 18."""
_FREE_GROWTH = 1_000
"""Characters by which a text may grow anyway: a short one may well be ``㎢`` alone."""
_PIECE_CHARACTERS = 4_096
_MAX_IDS = 2**24
_KEPT_TEXTS = 32
_KEPT_CHARACTERS = 2_048
"""Of a text whose ids are kept: what may come with every request is written by a person, and 32 such take 300 KB."""
_WORST_CHARACTER = "\ufdfa"

Side: TypeAlias = Literal["left", "right"]
"""The side of a document that a cut takes away."""

SLICE_CHARACTERS = 65_536
"""Characters tokenised at once: an encoding takes some 400 bytes a token until its ids are copied out."""


class PromptTokenizer:
    """A checkpoint's tokenizer with its template. Never changes after construction: threads may share it.

    Attributes:
        template: whose parts are filled.
        vocabulary: one more than the largest token id.

    Raises:
        ConfigurationError: the tokenizer cannot be read, its vocabulary lacks the template's words, or plain
            text could still become one of its control tokens.
    """

    def __init__(self, tokenizer_json: Path, template: Template) -> None:
        self.template = template
        text = read_text(tokenizer_json, MAX_TOKENIZER_BYTES)
        definition = json_object(text, tokenizer_json)
        with _failures_in_one_line(tokenizer_json):
            self._ascii_may_grow = grows_ascii(definition.get("normalizer"))
            whole, self._plain, unknown = _load(text, definition)
            self._normalise_ascii = ascii_normalizer(definition.get("normalizer"))
            self._normalised = _without_normalizer(self._plain)
            self.vocabulary = _vocabulary(whole)
            self._head = _head_spec(whole, template)
            self.parts: tuple[IdArray | Text, ...] = tuple(
                _array(whole.encode(part.text, add_special_tokens=False)) if isinstance(part, Control) else part
                for part in template.parts
            )
            """The template's parts, the control parts as ids."""
            _refuse_leaks(whole, self._plain, unknown)
            self._encode_and_keep = functools.lru_cache(_KEPT_TEXTS)(self._encode_one)
            self._may_grow = self._ascii_may_grow or self._normalised_length(_WORST_CHARACTER) > _MOST_GROWTH

    def head_spec(self) -> HeadSpec:
        """The head with its words as ids of this vocabulary."""
        return self._head

    @property
    def separator(self) -> int | None:
        """The control token behind the first text, which tells a cross-encoder where its second text begins."""
        texts = [index for index, part in enumerate(self.parts) if isinstance(part, Text)]
        behind = self.parts[texts[0] + 1 :][:1]
        if not behind or isinstance(behind[0], Text) or not len(behind[0]):
            return None
        return int(behind[0][0])

    def encode(self, texts: Sequence[str]) -> Iterator[IdArray]:
        """Ids of plain texts, int32; no added token is recognised in them."""
        if sum(map(len, texts)) <= SLICE_CHARACTERS:
            return map(_array, self._guarded(texts) if texts else ())
        return (_array(encoding) for part in slices(texts) for encoding in self._guarded(part))

    def encode_kept(self, text: str) -> IdArray:
        """As :meth:`encode`, for one text that may come with request after request: an instruction."""
        return self._encode_and_keep(text) if len(text) <= _KEPT_CHARACTERS else self._encode_one(text)

    def _encode_one(self, text: str) -> IdArray:
        ids = next(self.encode([text]))
        ids.flags.writeable = False
        return ids

    def starts(self, text: str) -> IdArray:
        """Where each token of a plain text begins, in characters: int32, shape (tokens,)."""
        (encoding,) = self._guarded([text], with_offsets=True)
        return np.array([start for start, _ in encoding.offsets], dtype=np.int32)

    def _guarded(self, texts: Sequence[str], *, with_offsets: bool = False) -> list[Encoding]:
        try:
            if self._may_grow:
                self._refuse_growth(texts)
            if with_offsets:
                return self._plain.encode_batch(texts, add_special_tokens=False)
            if (normalise := self._normalise_ascii) is not None and all(map(str.isascii, texts)):
                # A fifth of the time goes into Unicode normalisation that changes nothing of such a text.
                return self._normalised.encode_batch_fast(list(map(normalise, texts)), add_special_tokens=False)
            return self._plain.encode_batch_fast(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            raise InvalidRequest("a text holds half a surrogate pair, which is no character") from None
        except BaseException as error:
            # A panic of the library in Rust is no Exception; nobody above would catch it.
            if not _is_panic(error):
                raise
            raise ScoringError("the checkpoint's tokenizer failed on a text") from None

    def _refuse_growth(self, texts: Sequence[str]) -> None:
        """100,000 characters that become 1.8 million would cost seconds and half a gigabyte."""
        for text in texts:
            if (self._ascii_may_grow or not text.isascii()) and self._grows(text):
                growth = f"grows more than {_MOST_GROWTH}-fold when it is normalised"
                raise TooLarge(f"a text of {len(text)} characters {growth}")

    def _grows(self, text: str) -> bool:
        # Piece by piece: normalising holds the interpreter lock, and the verdict may come early.
        room = _MOST_GROWTH * len(text) + _FREE_GROWTH
        for start in range(0, len(text), _PIECE_CHARACTERS):
            room -= self._normalised_length(text[start : start + _PIECE_CHARACTERS])
            if room < 0:
                return True
        return False

    def _normalised_length(self, text: str) -> int:
        normalizer = self._plain.normalizer
        return len(text if normalizer is None else normalizer.normalize_str(text))

    def cut(self, text: str, tokens: int, side: Side = "right") -> str:
        """The text without what goes beyond ``tokens`` tokens, cut between characters at the side named."""
        # A batch of one: encode() would hold the interpreter lock all the while, encode_batch() gives it back.
        (encoding,) = self._plain.encode_batch([text], add_special_tokens=False)
        excess = len(encoding) - tokens
        if excess <= 0:
            return text
        if side == "left":
            return text[_span(encoding, excess - 1)[1] :]
        return text[: _span(encoding, tokens)[0]]


def slices(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts in order, each of at most :data:`SLICE_CHARACTERS` characters or a single text."""
    first = 0
    characters = 0
    for index, text in enumerate(texts):
        if index > first and characters + len(text) > SLICE_CHARACTERS:
            yield texts[first:index]
            first, characters = index, 0
        characters += len(text)
    if texts:
        yield texts[first:]


def _span(encoding: Encoding, token: int) -> tuple[int, int]:
    """Where a token's characters begin and end; a token of half a character has the whole character's span."""
    span = encoding.token_to_chars(token)
    if span is None:
        raise AssertionError("every token of a plain text comes from characters")
    return span


def _array(encoding: Encoding) -> IdArray:
    return np.array(encoding.ids, dtype=np.int32)


@contextlib.contextmanager
def _failures_in_one_line(file: Path) -> Iterator[None]:
    """The tokenizers library raises bare Exception for what it cannot read, and panics on some of what it can."""
    try:
        yield
    except ConfigurationError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigurationError(f"the tokenizer {file} cannot be read: {reason}") from None


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"


def _load(text: str, definition: Mapping[str, Any]) -> tuple[Tokenizer, Tokenizer, int | None]:
    """The tokenizer as it is, the same without control tokens, and the id of what it does not know."""
    whole = Tokenizer.from_str(text)
    plain = _without_control(whole, definition)
    for tokenizer in (whole, plain):
        tokenizer.no_truncation()
        tokenizer.no_padding()
    model = definition["model"]
    # Unigram names the unknown token by its place, the other models by its text.
    unknown = model.get("unk_id") if model.get("unk_token") is None else whole.token_to_id(model["unk_token"])
    return whole, plain, unknown


def _without_control(whole: Tokenizer, definition: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer of the same parts that knows no added tokens but runs of white space."""
    if (definition.get("model") or {}).get("type") == "Unigram":
        return Tokenizer.from_str(json.dumps({**_without_control_pieces(definition), "added_tokens": []}))
    # The vocabulary is shared, not read a second time: that is most of what loading a tokenizer takes.
    plain = Tokenizer(whole.model)
    for part in ("normalizer", "pre_tokenizer"):
        if (value := getattr(whole, part)) is not None:
            setattr(plain, part, value)
    plain.add_tokens([token for token in whole.get_added_tokens_decoder().values() if _is_space(token.content)])
    return plain


def _without_normalizer(tokenizer: Tokenizer) -> Tokenizer:
    """The same for texts that are normalised already; the vocabulary is shared."""
    normalised = Tokenizer(tokenizer.model)
    if tokenizer.pre_tokenizer is not None:
        normalised.pre_tokenizer = tokenizer.pre_tokenizer
    normalised.add_tokens(list(tokenizer.get_added_tokens_decoder().values()))
    normalised.no_truncation()
    normalised.no_padding()
    return normalised


def _is_space(content: str) -> bool:
    """Runs of white space are text, though some vocabularies (Gemma's) have them as added tokens."""
    return not content.strip("\u2581 \t\n\r")


def _without_control_pieces(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """A Unigram vocabulary lists its control tokens as pieces like any other: here none can spell them.

    Their names are replaced, for pieces are known by their place, by something that no text holds except by guessing
    128 random bits.
    """
    model = definition.get("model") or {}
    if model.get("type") != "Unigram":
        return definition
    control = {token["content"] for token in definition.get("added_tokens") or () if not _is_space(token["content"])}
    secret = secrets.token_hex(16)
    vocabulary = [
        [f"{secret}{index}", score] if piece in control and index != model.get("unk_id") else [piece, score]
        for index, (piece, score) in enumerate(model["vocab"])
    ]
    return {**definition, "model": {**model, "vocab": vocabulary}}


def _vocabulary(whole: Tokenizer) -> int:
    """One more than the largest id."""
    largest = max(whole.get_vocab(with_added_tokens=True).values(), default=0)
    if largest >= _MAX_IDS:
        raise ConfigurationError(f"the tokenizer has the token id {largest}; ids below {_MAX_IDS} are read")
    return int(largest) + 1


def _head_spec(whole: Tokenizer, template: Template) -> HeadSpec:
    head = template.head
    if head.kind == "linear":
        return HeadSpec(kind="linear")
    positive = _word(whole, head.positive)
    return HeadSpec("words", positive, None if head.negative is None else _word(whole, head.negative))


def _word(whole: Tokenizer, word: str | None) -> int:
    token = None if word is None else whole.token_to_id(word)
    if token is None:
        raise ConfigurationError(f"the template's word {word!r} is not one token of this tokenizer's vocabulary")
    return token


def _refuse_leaks(whole: Tokenizer, plain: Tokenizer, unknown: int | None) -> None:
    """A vocabulary that holds its control tokens as ordinary words may hand them out after all."""
    added = {
        number: token for number, token in whole.get_added_tokens_decoder().items() if not _is_space(token.content)
    }
    control = added.keys() - {unknown}
    for token in added.values():
        for text in (token.content, f" {token.content} ", f"a{token.content}a"):
            if not control.isdisjoint(plain.encode(text, add_special_tokens=False).ids):
                raise ConfigurationError(f"plain text becomes the control token {token.content!r} in this vocabulary")
