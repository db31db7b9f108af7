"""Instructions by name: found, filled, listed, read again, and refused where nobody knows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.served import served

from rerankd.errors import ConfigurationError, InvalidRequest
from rerankd.service import instructions as module
from rerankd.service.instructions import Instructions
from rerankd.service.runtime import RerankService
from rerankd.settings import ModelSettings, Settings

BUILT_IN = Instructions()


def preset(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def test_every_preset_that_comes_along_says_when_to_use_it() -> None:
    assert {"web_search", "qa", "code_search", "duplicate_question", "legal_zh", "ecommerce"} <= set(BUILT_IN.presets)
    for one in BUILT_IN.presets.values():
        assert one.use
        assert one.is_built_in
        assert "{" not in one.filled({})


def test_a_name_stands_for_its_sentence_and_any_other_text_for_itself() -> None:
    assert BUILT_IN.resolve("@qa") == "Given a question, retrieve passages that contain the answer"
    assert BUILT_IN.resolve("find the answer to @qa") == "find the answer to @qa"
    assert BUILT_IN.resolve("@ home: retrieve recipes") == "@ home: retrieve recipes"


def test_variables_are_filled_and_have_defaults() -> None:
    plain = BUILT_IN.resolve("@code_search")
    assert plain == "Given a question about code, retrieve the function that does it"
    assert "the Visual Basic function" in BUILT_IN.resolve('@code_search language="Visual Basic"')


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("@code_serch", "did you mean 'code_search'"),
        ("@zzz", "there is academic"),
        ("@qa language=Go", "it has none"),
        ("@code_search lang=Go", "it has language"),
        ("@code_search Go", "name=value"),
        ('@code_search language="Go', "name=value"),
    ],
)
def test_what_nobody_knows_is_refused_with_what_there_is(asked: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        BUILT_IN.resolve(asked)
    assert caught.value.param == "instruction"


def test_a_folder_adds_presets_and_takes_the_places_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LOOKS", 0.0)
    preset(tmp_path, "qa", 'text = "ours"')
    presets = Instructions.of(str(tmp_path))
    assert presets.resolve("@qa") == "ours"
    preset(tmp_path, "new", 'text = "a {colour} one"\nvariables = {colour = "red"}')
    assert presets.resolve("@new colour=blue") == "a blue one"
    preset(tmp_path, "new", "text = 7")
    assert presets.resolve("@new") == "a red one"
    (tmp_path / "qa.toml").unlink()
    assert presets.resolve("@qa") == BUILT_IN.resolve("@qa")


@pytest.mark.parametrize(
    ("text", "says"),
    [("text = ", "no TOML"), ("use = 'x'", "needs a text"), ("text = 'a {b}'", "no default"), ("text = ''", "text")],
)
def test_a_server_does_not_start_with_a_broken_preset(tmp_path: Path, text: str, says: str) -> None:
    preset(tmp_path, "mine", text)
    with pytest.raises(ConfigurationError, match=says):
        Instructions.of(str(tmp_path))


async def test_any_dialect_takes_a_name_and_the_cache_knows_it_for_its_sentence() -> None:
    async with served(cache="memory") as server:
        by_name = await server.rerank("q", ["d"], instruction="@qa")
        scored = server.engine.pairs
        body = {"query": "q", "documents": ["d"], "kwargs": '{"instruction": "@qa"}'}
        other = await server.client.post("/v1/rerank", json=body)
        sentence = await server.rerank("q", ["d"], instruction=BUILT_IN.resolve("@qa"))
        assert (by_name.status_code, other.status_code, sentence.status_code) == (200, 200, 200)
        assert server.engine.pairs == scored
        refused = await server.rerank("q", ["d"], instruction="@nobody")
        assert refused.status_code == 400
        listed = (await server.client.get("/v1/instructions")).json()["data"]
        assert {row["id"] for row in listed} == set(BUILT_IN.presets)
        (card, *_) = (await server.client.get("/v1/models")).json()["data"]
        assert card["reads_instruction"] is False


async def test_a_served_name_with_an_unknown_instruction_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="served name odd"):
        await RerankService(Settings(models={"odd": ModelSettings(instruction="@nobody")})).start()
