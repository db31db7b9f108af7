from __future__ import annotations

from dataclasses import replace

from rerankd.evaluate.bm25 import tokens, with_candidates
from rerankd.evaluate.dataset import EvaluationSet


def test_documents_that_share_words_are_found_best_first(small_set: EvaluationSet) -> None:
    texts = {"d1": "apples and apples", "d2": "apples, pears and a great many other fruits", "d3": "plums"}
    data = with_candidates(replace(small_set, documents=texts, candidates={}), top_k=10)
    assert [document for document, _ in data.candidates["q1"]] == ["d1", "d2"]
    assert [document for document, _ in data.candidates["q2"]] == ["d3"]


def test_a_query_that_shares_no_word_has_no_candidates(small_set: EvaluationSet) -> None:
    data = with_candidates(replace(small_set, queries={"q1": "quinces", "q2": "plums"}, candidates={}), top_k=2)
    assert list(data.candidates) == ["q2"]


def test_chinese_is_cut_into_pairs_of_characters() -> None:
    assert tokens("法国的首都 is Paris-2024") == ["法国", "国的", "的首", "首都", "is", "paris", "2024"]
    assert tokens("茶") == ["茶"]


def test_chinese_documents_are_found(small_set: EvaluationSet) -> None:
    texts = {"d1": "德国的首都是柏林。", "d2": "香蕉是黄色的水果。", "d3": "法国的首都是巴黎。"}
    data = replace(small_set, queries={"q1": "法国的首都是哪里？"}, documents=texts, candidates={})
    assert [document for document, _ in with_candidates(data, top_k=1).candidates["q1"]] == ["d3"]
