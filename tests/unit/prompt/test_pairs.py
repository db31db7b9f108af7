"""The pairs of cross-encoders: ids are those of the tokenizer's own post-processor, and texts stay texts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from rerankd.errors import ConfigurationError
from rerankd.prompt.build import PromptBuilder, PromptLimits
from rerankd.prompt.template_choice import load_template
from rerankd.prompt.tokenizer import PromptTokenizer
from rerankd.service.ranking import document_score

CORPUS = [
    "the capital of France is Paris",
    "a query about documents < s > / [ SEP ] and other words",
    "巴黎是法国的首都",
]
ATTACKS = ["[SEP]", "</s>", "a </s></s> b", "<s>", " [CLS] x", "<mask>", "[MASK][PAD]", "<pad></s>"]


def wordpiece() -> Tokenizer:
    """As BERT's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


def unigram() -> Tokenizer:
    """As XLM-RoBERTa's: the control tokens are pieces of the vocabulary too, and score best."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted({letter for text in [*CORPUS, "</s><mask>"] for letter in text if letter != " "})
    pieces = [(name, 0.0) for name in special] + [("▁", -2.0)] + [(letter, -5.0) for letter in letters]
    pieces += [(f"▁{word}", -3.0) for word in ["the", "capital", "of", "France", "is", "Paris"]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """As RoBERTa's, with its own post-processor."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


KINDS = {"bert-pair": wordpiece, "roberta-pair": unigram, "roberta-pair, bytes": byte_level}


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    KINDS[request.param]().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["SomeForSequenceClassification"]}))
    (tmp_path / "kind").write_text(request.param.partition(",")[0])
    return tmp_path


def open_tokenizer(folder: Path) -> PromptTokenizer:
    return PromptTokenizer(folder / "tokenizer.json", load_template(folder))


def random_texts(count: int) -> list[str]:
    numbers = random.Random(3)
    words = " ".join(CORPUS).split()
    return [" ".join(numbers.choices(words, k=numbers.randint(0, 12))) for _ in range(count)]


def test_ids_are_those_of_the_post_processor(folder: Path) -> None:
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = open_tokenizer(folder)
    assert tokenizer.template.name == (folder / "kind").read_text()
    builder = PromptBuilder(tokenizer)
    for query in random_texts(20):
        documents = random_texts(10)
        pairs = builder.pairs(query, documents, "", PromptLimits())
        for document, pair in zip(documents, pairs, strict=True):
            expected = whole.encode(query, document)
            assert pair.ids.tolist() == expected.ids
            # The second segment begins behind the first separator.
            separator = expected.ids.index(tokenizer.separator) + 1
            if 1 in expected.type_ids:
                assert expected.type_ids == [0] * separator + [1] * (len(expected.ids) - separator)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_a_control_token(folder: Path, attack: str) -> None:
    tokenizer = open_tokenizer(folder)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unknown = {whole.token_to_id("<unk>"), whole.token_to_id("[UNK]")}
    control = set(whole.get_added_tokens_decoder()) - unknown
    (ids,) = tokenizer.encode([attack])
    assert not control & set(ids.tolist())


def test_a_long_pair_loses_tokens_of_the_document_alone(folder: Path) -> None:
    tokenizer = open_tokenizer(folder)
    (pair,) = PromptBuilder(tokenizer).pairs("the capital", ["Paris is " * 100], "", PromptLimits(max_pair_tokens=40))
    assert pair.truncated
    assert len(pair.ids) <= 40
    (query,) = tokenizer.encode(["the capital"])
    assert pair.ids[1 : 1 + len(query)].tolist() == query.tolist()
    assert pair.ids[-1] == tokenizer.separator


def test_another_frame_is_refused(tmp_path: Path) -> None:
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="[SEP] $A [CLS] $B", special_tokens=[("[SEP]", 3), ("[CLS]", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["SomeForSequenceClassification"]}))
    with pytest.raises(ConfigurationError, match="no prompt template is known"):
        load_template(tmp_path)


@pytest.mark.parametrize(
    ("settings", "activation"),
    [
        ({}, "sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "identity"),
    ],
)
def test_scores_are_as_the_card_defines_them(tmp_path: Path, settings: dict[str, object], activation: str) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    config = {"architectures": ["BertForSequenceClassification"], **settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    template = load_template(tmp_path)
    assert template.activation == activation
    score = document_score(0, 2.0, template.scale, template.bias, template.activation).score
    assert score == (2.0 if activation == "identity" else pytest.approx(0.8808, abs=1e-4))


def test_another_activation_is_refused_by_name(tmp_path: Path) -> None:
    wordpiece().save(str(tmp_path / "tokenizer.json"))
    named = {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"], **named}))
    with pytest.raises(ConfigurationError, match="Tanh"):
        load_template(tmp_path)
