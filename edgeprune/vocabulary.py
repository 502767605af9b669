"""Tokenizers with fewer tokens: which may go, in what order they are kept, and what stays written.

Works on what `tokenizers` writes as tokenizer.json. All tokens that are kept are the encoder's own,
so a text is read in old pieces, and the embeddings of those serve.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.tokens import Tokens

Spec = Mapping[str, Any]  # a tokenizer.json
Parts = Mapping[str, Sequence[str]]  # by a token: the tokens that it is merged from

KINDS = ("WordPiece", "BPE", "Unigram")
UNUSED = re.compile(r"\[unused\d+\]")  # BERT's spare rows, which no text comes to
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens by their ids, in the order in which they are kept.

    The first `total` leave no text unread that all tokens read, and the first `needed` are also
    what the task needs. From there on every beginning of the order is a vocabulary.
    """

    order: tuple[int, ...]
    total: int
    needed: int

    @classmethod
    def of(cls, spec: Spec, pad: int, needed: Sequence[Tokens], likely: Tokens) -> Vocabulary:
        """The tokens of a tokenizer with `pad` for padding, what `needed` holds by its frequency.

        What is left comes by how often it is to be expected: its share of the `likely` text and
        that by Zipf's law of its rank together. Pretrained vocabularies are sorted by frequency.
        """
        ids, parts = _ids(spec), _parts(spec)
        names = {number: name for name, number in ids.items()}
        found: dict[int, None] = {}

        def keep(numbers: Iterable[int]) -> int:
            """Each behind those that it is merged from; how many there are now."""
            for number in numbers:
                for name in _with_parts(names[number], parts):
                    found[ids[name]] = None
            return len(found)

        # RoBERTa and its kin count positions from the padding's id, which must stay.
        before = {number for number in names if number <= pad}
        total = keep(sorted(before | {ids[name] for name in _total(spec, ids)}))
        counts = sum((_counts(tokens, names) for tokens in needed), Counter[int]())
        wanted = keep(sorted(counts, key=lambda number: (-counts[number], number)))
        shares, spoken = _counts(likely, names), max(1, int(likely.lengths.sum()))
        usual = [n for n in sorted(names) if n not in found and not UNUSED.fullmatch(names[n])]
        zipf = 1 / sum(1 / rank for rank in range(1, len(names) + 1))
        expected = {n: shares[n] / spoken + zipf / rank for rank, n in enumerate(usual, 1)}
        keep(sorted(expected, key=lambda number: (-expected[number], number)))
        keep(sorted(names))
        return cls(tuple(found), total, wanted)

    def first(self, tokens: int) -> tuple[int, ...]:
        """The ids of so many tokens, as many as there are at most, ascending."""
        return tuple(sorted(self.order[:tokens]))


def _counts(tokens: Tokens, known: Container[int]) -> Counter[int]:
    """How often each token stands in the rows."""
    found = Counter(number for row in tokens.ids for number in row.tolist())
    return Counter({number: count for number, count in found.items() if number in known})


def _ids(spec: Spec) -> dict[str, int]:
    """Every token's id; added ones need not stand in the model."""
    model = spec["model"]
    listed = model["vocab"]
    if model["type"] == "Unigram":
        ids = {piece: number for number, (piece, _) in enumerate(listed)}
    else:
        ids = dict(listed)
    return ids | {token["content"]: token["id"] for token in spec["added_tokens"]}


def _parts(spec: Spec) -> Parts:
    """What each token of a BPE is merged from; where it can be in several ways, of all of them."""
    found: dict[str, list[str]] = {}
    if spec["model"]["type"] == "BPE":
        for left, right in spec["model"]["merges"]:
            found.setdefault(_merged(spec, left, right), []).extend((left, right))
    return found


def _merged(spec: Spec, left: str, right: str) -> str:
    return str(left + right[len(spec["model"].get("continuing_subword_prefix") or "") :])


def _with_parts(name: str, parts: Parts) -> Iterator[str]:
    """All that a token is merged from, down to what no merge makes, before the token itself."""
    seen, left = set[str](), [(name, False)]
    while left:
        token, ready = left.pop()
        if ready:
            yield token
        elif token not in seen:
            seen.add(token)
            left.append((token, True))
            left += [(part, False) for part in parts.get(token, ())]


def _total(spec: Spec, ids: Mapping[str, int]) -> Iterator[str]:
    """The tokens without which a text might be unknown, or read in another way than it has to."""
    model = spec["model"]
    yield from (token["content"] for token in spec["added_tokens"])
    if (unknown := model.get("unk_token")) in ids:
        yield unknown
    if model["type"] == "BPE":
        # What no merge makes: characters or bytes.
        parts = _parts(spec)
        yield from (name for name in model["vocab"] if name not in parts)
    elif model["type"] == "Unigram":
        pieces = {piece for piece, _ in model["vocab"]}
        yield from _unspelled(pieces, lambda piece: list(piece))
        if model["vocab"]:
            if model["unk_id"] is not None:
                yield model["vocab"][model["unk_id"]][0]
            # By the least score it is reckoned what an unknown character costs.
            yield min(model["vocab"], key=lambda entry: entry[1])[0]
    else:
        prefix = model["continuing_subword_prefix"]

        def letters(name: str) -> list[str]:
            """As they are read alone: the first as it begins, the others as they go on."""
            goes_on = name.startswith(prefix) and name != prefix
            body = name.removeprefix(prefix) if goes_on else name
            first = prefix + body[0] if goes_on else body[0]
            return [first, *(prefix + letter for letter in body[1:])]

        yield from _unspelled(set(model["vocab"]), letters)


def _unspelled(names: set[str], letters: Callable[[str], Sequence[str]]) -> Iterator[str]:
    """The characters, the bytes, and what cannot be spelled by single characters that are there."""
    for name in names:
        if UNUSED.fullmatch(name):
            continue
        spelling = letters(name) if name else []
        if len(spelling) < 2 or BYTE.fullmatch(name) or not names.issuperset(spelling):
            yield name


# --- what is kept, written ----------------------------------------------------------------------


def rewritten(spec: Spec, kept: Sequence[int]) -> dict[str, Any]:
    """The tokenizer with only the tokens of these ids, ascending; their places are the new ids."""
    new = {old: number for number, old in enumerate(kept)}
    found = copy.deepcopy(dict(spec))
    model = found["model"]
    if model["type"] == "Unigram":
        if model["unk_id"] is not None:
            model["unk_id"] = new[model["unk_id"]]
        model["vocab"] = [entry for old, entry in enumerate(model["vocab"]) if old in new]
    else:
        vocab = sorted(model["vocab"].items(), key=lambda item: item[1])
        model["vocab"] = {name: new[old] for name, old in vocab if old in new}
    if model["type"] == "BPE":
        there = model["vocab"]
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left in there and right in there and _merged(spec, left, right) in there
        ]
    for token in found["added_tokens"]:
        token["id"] = new[token["id"]]
    if found.get("padding") is not None:
        found["padding"]["pad_id"] = new[found["padding"]["pad_id"]]
    _renumber(found.get("post_processor"), new)
    return found


def _renumber(processor: dict[str, Any] | None, new: Mapping[int, int]) -> None:
    """The ids of the tokens that are put around a text."""
    if processor is None:
        return
    if processor["type"] == "Sequence":
        for one in processor["processors"]:
            _renumber(one, new)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new[old] for old in token["ids"]]
    else:
        for name in ("sep", "cls"):
            if name in processor:
                processor[name][1] = new[processor[name][1]]


def differences(
    before: Tokens, after: Tokens, kept: Sequence[int], unknown: int | None, length: int
) -> NDArray[np.bool_]:
    """[rows]: where fewer tokens read a row otherwise than they may; `after` is in the old ids.

    A row of which every token is kept is read as before, and what was known stays known. Rows that
    were cut at `length` tokens are looked at for the latter alone: where they are cut may change.
    """
    there = set(kept)
    found = np.zeros(len(before), dtype=np.bool_)
    for row, (old, new) in enumerate(zip(before.ids, after.ids, strict=True)):
        whole = there.issuperset(old.tolist()) and len(old) < length
        lost = unknown is not None and unknown in new and unknown not in old
        found[row] = lost or (whole and not np.array_equal(old, new))
    return found
