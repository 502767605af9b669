"""Tokenizers with fewer tokens, of three kinds: what they read as before, and that they read all.

Each is trained on a few sentences, so that its vocabulary is a real one of its kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from edgeprune.tokens import Tokens
from edgeprune.vocabulary import Vocabulary, differences, rewritten

CORPUS = (
    "the cat sat on the mat and the hat sat on the cat",
    "a bat that had sat on a hat ate the mat at last",
    "once that bat had a chat the cats had the last chat on the mats",
    "no one can tell a cat that no hat can be told from the mat",
)
LETTERS = "abcdefghlmnorst "
texts = st.text(LETTERS, min_size=1, max_size=30)


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = [*LETTERS.strip(), *(f"##{letter}" for letter in LETTERS.strip())]
    words = ["[unused1]", "the", "cat", "##s", "hat", "mat", "sat", "##at", "ch", "last", "on"]
    names = dict.fromkeys([*special, *words, *alphabet])
    tokenizer.model = models.WordPiece(
        {name: number for number, name in enumerate(names)}, unk_token="[UNK]"
    )
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", names_of(tokenizer)["[SEP]"]), ("[CLS]", names_of(tokenizer)["[CLS]"])
    )
    return tokenizer


def bytes_merged() -> Tokenizer:
    """As RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = names_of(tokenizer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"])
    )
    tokenizer.enable_padding(pad_id=ids["<pad>"], pad_token="<pad>")
    tokenizer.no_padding()
    return tokenizer


def letters_merged() -> Tokenizer:
    """A BPE of characters, whose pieces within a word are marked."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=90,
        special_tokens=["<pad>", "<unk>"],
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """As XLM-RoBERTa's, whose mask stands behind the pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    ids = names_of(tokenizer)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.TemplateProcessing(
                single="<s> $A </s>",
                pair="<s> $A </s> </s> $B </s>",
                special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
            )
        ]
    )
    return tokenizer


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": wordpiece,
    "byte-level BPE": bytes_merged,
    "BPE with a prefix": letters_merged,
    "Unigram": unigram,
}
kinds = pytest.mark.parametrize("kind", MAKERS)


@cache
def made(kind: str) -> Tokenizer:
    return MAKERS[kind]()


@cache
def spec_of(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(made(kind).to_str())
    return spec


def names_of(tokenizer: Tokenizer) -> dict[str, int]:
    return dict(tokenizer.get_vocab(with_added_tokens=True))


def pad_of(tokenizer: Tokenizer) -> int:
    return next(number for name, number in names_of(tokenizer).items() if "pad" in name.lower())


def unknown_of(tokenizer: Tokenizer) -> int | None:
    """Byte-level BPE has one by name, and never says it."""
    return next((n for name, n in names_of(tokenizer).items() if "unk" in name.lower()), None)


def tokens_of(tokenizer: Tokenizer, rows: Sequence[str]) -> Tokens:
    ids = tuple(np.array(tokenizer.encode(row).ids, dtype=np.int64) for row in rows)
    return Tokens(ids, tuple(np.zeros_like(row) for row in ids), pad_of(tokenizer))


def vocabulary_of(
    kind: str, needed: Sequence[str] = CORPUS[:1], likely: Sequence[str] = CORPUS[1:2]
) -> Vocabulary:
    tokenizer = made(kind)
    rows = [tokens_of(tokenizer, needed)] if needed else []
    return Vocabulary.of(spec_of(kind), pad_of(tokenizer), rows, tokens_of(tokenizer, likely))


@cache
def cut(kind: str, tokens: int) -> tuple[Tokenizer, tuple[int, ...]]:
    kept = vocabulary_of(kind).first(tokens)
    return Tokenizer.from_str(json.dumps(rewritten(spec_of(kind), kept))), kept


def sizes(kind: str) -> list[int]:
    vocabulary = vocabulary_of(kind)
    whole = len(vocabulary.order)
    return [vocabulary.total, vocabulary.needed, (vocabulary.needed + whole) // 2, whole]


def read(tokenizer: Tokenizer, kept: Sequence[int], text: str) -> list[int]:
    """In the old ids."""
    return [kept[number] for number in tokenizer.encode(text).ids]


# --- every kind ---------------------------------------------------------------------------------


@kinds
def test_ids_are_as_many_as_tokens_are_kept_from_zero_on(kind: str) -> None:
    before = {number: name for name, number in names_of(made(kind)).items()}
    for size in sizes(kind):
        tokenizer, kept = cut(kind, size)
        assert len(kept) == size
        assert list(kept) == sorted(set(kept))
        after = names_of(tokenizer)
        assert sorted(after.values()) == list(range(size))
        assert all(before[kept[number]] == name for name, number in after.items())
        assert pad_of(tokenizer) == pad_of(made(kind))


@kinds
@given(text=texts, at=st.integers(0, 3))
def test_a_text_of_which_all_tokens_are_kept_is_read_as_before(
    kind: str, text: str, at: int
) -> None:
    tokenizer, kept = cut(kind, sizes(kind)[at])
    before = made(kind).encode(text).ids
    if set(kept).issuperset(before):
        assert read(tokenizer, kept, text) == before


@kinds
def test_what_is_needed_is_read_as_before_with_the_fewest_tokens(kind: str) -> None:
    tokenizer, kept = cut(kind, vocabulary_of(kind).needed)
    assert read(tokenizer, kept, CORPUS[0]) == made(kind).encode(CORPUS[0]).ids
    assert read(tokenizer, kept, CORPUS[2]) != made(kind).encode(CORPUS[2]).ids


@kinds
@given(text=texts, at=st.integers(0, 3))
def test_no_text_that_was_read_is_unknown(kind: str, text: str, at: int) -> None:
    tokenizer, kept = cut(kind, sizes(kind)[at])
    unknown = unknown_of(made(kind))
    if unknown not in made(kind).encode(text).ids:
        assert unknown not in read(tokenizer, kept, text)


@kinds
@given(text=st.text(max_size=30), at=st.integers(0, 3))
def test_any_text_is_read_in_ids_that_there_are_and_says_the_same(
    kind: str, text: str, at: int
) -> None:
    tokenizer, kept = cut(kind, sizes(kind)[at])
    ids = tokenizer.encode(text).ids
    assert all(0 <= number < len(kept) for number in ids)
    before = made(kind).encode(text).ids
    if unknown_of(made(kind)) not in before and made(kind).decoder is not None:
        assert tokenizer.decode(ids) == made(kind).decode(before)


@kinds
def test_all_tokens_kept_are_the_tokenizer_as_it_was(kind: str) -> None:
    kept = vocabulary_of(kind).first(10_000)
    spec = spec_of(kind)
    merged = spec["model"].get("merges")
    again = rewritten(spec, kept)
    assert again["model"]["vocab"] == spec["model"]["vocab"]
    assert again["model"].get("merges") == merged
    assert again["added_tokens"] == spec["added_tokens"]
    assert again["post_processor"] == spec["post_processor"]


@kinds
def test_rewriting_leaves_what_it_was_given(kind: str) -> None:
    before = json.dumps(spec_of(kind))
    rewritten(spec_of(kind), vocabulary_of(kind).first(vocabulary_of(kind).total))
    assert json.dumps(spec_of(kind)) == before


@kinds
def test_texts_are_put_between_the_same_tokens(kind: str) -> None:
    tokenizer, kept = cut(kind, vocabulary_of(kind).total)
    pair = [kept[number] for number in tokenizer.encode("e", "e").ids]
    assert pair == made(kind).encode("e", "e").ids


@kinds
def test_the_order_is_the_same_each_time_and_holds_each_token_once(kind: str) -> None:
    vocabulary = vocabulary_of(kind)
    assert vocabulary == vocabulary_of(kind)
    assert sorted(vocabulary.order) == sorted(names_of(made(kind)).values())
    assert 0 < vocabulary.total < vocabulary.needed < len(vocabulary.order)


# --- one kind -----------------------------------------------------------------------------------


def named(kind: str, vocabulary: Vocabulary, start: int, end: int | None = None) -> list[str]:
    names = {number: name for name, number in names_of(made(kind)).items()}
    return [names[number] for number in vocabulary.order[start:end]]


def test_what_is_needed_comes_by_its_frequency_then_what_is_likely_or_usual() -> None:
    vocabulary = vocabulary_of("WordPiece", ["the the the cat"], ["hat hat mat"])
    total, needed = vocabulary.total, vocabulary.needed
    assert named("WordPiece", vocabulary, total, needed) == ["the", "cat"]
    rest = named("WordPiece", vocabulary, needed)
    assert rest[:2] == ["hat", "mat"]
    assert rest[-1] == "[unused1]"
    assert rest[2:-1] == ["sat", "##at", "ch", "last", "on"]  # as the vocabulary has them


def test_every_beginning_holds_what_its_tokens_are_merged_from() -> None:
    vocabulary = vocabulary_of("byte-level BPE")
    for tokens in range(vocabulary.total, len(vocabulary.order) + 1):
        spec = rewritten(spec_of("byte-level BPE"), vocabulary.first(tokens))
        whole = set(spec["model"]["vocab"])
        merged = {left + right for left, right in spec["model"]["merges"]}
        alone = {name for name in whole if len(name) == 1}
        special = {token["content"] for token in spec["added_tokens"]}
        assert whole == merged | alone | special


def test_a_token_that_can_be_merged_in_two_ways_keeps_both() -> None:
    vocab = {name: n for n, name in enumerate(["<pad>", "a", "b", "c", "ab", "bc", "abc", "cc"])}
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("c", "c")]
    spec = json.loads(Tokenizer(models.BPE(vocab, merges)).to_str())
    ids = np.array([vocab["abc"]])
    vocabulary = Vocabulary.of(spec, 0, [Tokens((ids,), (ids,), 0)], Tokens((), (), 0))
    kept = vocabulary.first(vocabulary.needed)
    assert {vocab["ab"], vocab["bc"]} <= set(kept)
    assert vocab["cc"] not in kept
    model = rewritten(spec, kept)["model"]
    assert [tuple(merge) for merge in model["merges"]] == merges[:4]


def test_ids_up_to_the_padding_stay_where_positions_count_from_it() -> None:
    vocab = {name: n for n, name in enumerate(["ab", "bb", "<pad>", "a", "##b", "##a", "b"])}
    spec = json.loads(Tokenizer(models.WordPiece(vocab, unk_token="<pad>")).to_str())
    vocabulary = Vocabulary.of(spec, 2, [], Tokens((), (), 2))
    assert vocabulary.order[:3] == (0, 1, 2)


def test_a_word_that_no_letters_spell_is_kept() -> None:
    vocab = {name: n for n, name in enumerate(["[UNK]", "a", "##b", "ab", "xb", "##by", "aq"])}
    spec = json.loads(Tokenizer(models.WordPiece(vocab, unk_token="[UNK]")).to_str())
    vocabulary = Vocabulary.of(spec, 0, [], Tokens((), (), 0))
    assert sorted(vocabulary.order[: vocabulary.total]) == [0, 1, 2, 4, 5, 6]


def test_bytes_and_the_least_likely_piece_of_a_unigram_are_kept() -> None:
    pieces = [
        ("<unk>", 0.0),
        ("a", -1.0),
        ("b", -2.0),
        ("ab", -9.0),
        ("ba", -3.0),
        ("<0x41>", -4.0),
    ]
    spec = json.loads(Tokenizer(models.Unigram(pieces, 0, True)).to_str())
    vocabulary = Vocabulary.of(spec, 0, [], Tokens((), (), 0))
    assert sorted(vocabulary.order[: vocabulary.total]) == [0, 1, 2, 3, 5]
    model = rewritten(spec, [0, 1, 2, 3, 5])["model"]
    assert [piece for piece, _ in model["vocab"]] == ["<unk>", "a", "b", "ab", "<0x41>"]
    assert model["unk_id"] == 0


def test_a_unigram_without_an_unknown_piece_stays_without() -> None:
    spec = json.loads(Tokenizer(models.Unigram([("a", -1.0), ("aa", -2.0)], None, False)).to_str())
    vocabulary = Vocabulary.of(spec, -1, [], Tokens((), (), 0))
    assert rewritten(spec, vocabulary.first(2))["model"]["unk_id"] is None


def test_the_padding_of_the_file_is_renumbered() -> None:
    tokenizer = wordpiece()
    ids = names_of(tokenizer)
    tokenizer.enable_padding(pad_id=ids["[MASK]"], pad_token="[MASK]")
    kept = [n for n in sorted(ids.values()) if n != ids["[SEP]"]]
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] != "[SEP]"]
    spec["post_processor"] = None
    assert rewritten(spec, kept)["padding"]["pad_id"] == ids["[MASK]"] - 1


# --- rows that are held against one another -----------------------------------------------------


def rows(*ids: Sequence[int]) -> Tokens:
    return Tokens(tuple(np.array(row) for row in ids), tuple(np.array(row) for row in ids), 0)


def test_rows_may_differ_where_a_token_is_gone_and_nowhere_else() -> None:
    before = rows([1, 2, 3], [1, 2, 9], [1, 2, 3], [1, 9], [1, 0], [1, 2, 3, 1])
    after = rows([1, 2, 3], [1, 2, 4, 5], [1, 3, 2], [1, 0], [1, 0, 0], [1, 2, 3, 2])
    found = differences(before, after, [0, 1, 2, 3, 4, 5], 0, 4)
    assert found.tolist() == [False, False, True, True, True, False]
    without_unknown = differences(before, after, [0, 1, 2, 3, 4, 5], None, 4)
    assert without_unknown.tolist() == [False, False, True, False, True, False]


def test_sizes_grow() -> None:
    assert all(a < b for kind in MAKERS for a, b in pairwise(sizes(kind)))
