"""Ways to damage a checkpoint, by a name each; ``security/test_hostile_checkpoints.py`` tries all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]

TERABYTE = 2**40


def weights(content: bytes | None = None, bytes_on_disk: int = 0) -> Damage:
    """The only file of weights becomes this; sparse where it is to be larger than its content."""

    def damage(folder: Path) -> None:
        with (folder / "model.safetensors").open("wb") as stream:
            stream.write(content or b"")
            stream.truncate(max(len(content or b""), bytes_on_disk))

    return damage


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file; ``length`` is what it says of its header where that is a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(**fields: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **fields}


def one(**fields: Any) -> Damage:
    return weights(packed({"score.weight": tensor(**fields)}, b"\0" * 16))


def rewritten(change: Callable[[dict[str, Any]], None]) -> Damage:
    """The header of the real weights, changed."""

    def damage(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        file.write_bytes(packed(header, content[8 + length :]))

    return damage


def larger_than_any_disk(folder: Path) -> None:
    """A true header over a file of a terabyte: who reads all of it before looking at it is never ready."""
    rows = TERABYTE // 64
    header = {"model.embed_tokens.weight": tensor(shape=[rows, 16], data_offsets=[0, TERABYTE])}
    content = packed(header)
    weights(content, len(content) + TERABYTE)(folder)


def of_many_tensors(folder: Path) -> None:
    # Written out, and when it is asked for: made by the encoder at every collection of tests it took a second.
    one_of_them = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    weights(packed(b"{" + b",".join(one_of_them % number for number in range(300_000)) + b"}"))(folder)


WEIGHTS: dict[str, Damage] = {
    "an empty file": weights(),
    "half a length": weights(b"\1\0\0"),
    "a header of no bytes": weights(packed(b"")),
    "a header larger than the file": weights(packed({}, length=1000)),
    "a header of 2^64 bytes": weights(packed({}, length=2**64 - 1)),
    "a header of 2^63 bytes": weights(packed({}, length=2**63)),
    "a header of 90 MB of nothing": weights(packed(b"", length=90_000_000), 100_000_000),
    "a header of 300,000 tensors": of_many_tensors,
    "a header that is no JSON": weights(packed(b"not JSON")),
    "a header that is a list": weights(packed([1])),
    "a deep header": weights(packed(b'{"a":' * 100_000)),
    "a deep list in a header": weights(packed(b'{"a":' + b"[" * 100_000)),
    "a header of half a pair": weights(packed(b'{"\\ud800": 1}')),
    "no tensors": weights(packed({})),
    "offsets from behind to before": one(data_offsets=[16, 0]),
    "offsets beyond the file": one(data_offsets=[0, 1 << 50]),
    "offsets below zero": one(data_offsets=[-16, 0]),
    "offsets of 65 bits": one(data_offsets=[0, 1 << 64]),
    "one offset": one(data_offsets=[0]),
    "fewer bytes than the shape": one(data_offsets=[0, 8]),
    "more bytes than the shape": one(shape=[1]),
    "a shape below zero": one(shape=[-4]),
    "a shape whose product overflows": one(shape=[1 << 32, 1 << 32, 4]),
    "a shape of texts": one(shape=["4"]),
    "a shape of 10,000 sides": one(shape=[1] * 9_999 + [4]),
    "an unknown number format": one(dtype="F99"),
    "a number format that is a number": one(dtype=32),
    "a format that no weights have": one(dtype="I32"),
    "a format of eight bits": one(dtype="F8_E4M3", shape=[16]),
    "tensors over each other": weights(
        packed({"a": tensor(), "b": tensor(data_offsets=[8, 24])}, b"\0" * 24),
    ),
    "a gap between tensors": weights(packed({"a": tensor(), "b": tensor(data_offsets=[32, 48])}, b"\0" * 48)),
    "bytes behind the last tensor": weights(packed({"a": tensor()}, b"\0" * 1000)),
    "metadata that is no text": weights(packed({"__metadata__": {"a": [1]}, "a": tensor()}, b"\0" * 16)),
    "a name of a megabyte": weights(packed({"x" * 1_000_000: tensor()}, b"\0" * 16)),
    "a name that moves the cursor": weights(packed({"\x1b[2J\n\r\x07": tensor()}, b"\0" * 16)),
    "a terabyte of weights": larger_than_any_disk,
    "another shape of the same bytes": rewritten(
        lambda header: header["model.embed_tokens.weight"].update(shape=[16, 32])
    ),
    "a tensor less": rewritten(lambda header: header.update({"x": header.pop("score.weight")})),
}


def linked(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def fifo(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return damage


def written(name: str, text: str | bytes) -> Damage:
    content = text if isinstance(text, bytes) else text.encode()
    return lambda folder: bool((folder / name).write_bytes(content)) and None


def sparse(name: str, size: int) -> Damage:
    return lambda folder: os.truncate(folder / name, size)


def folder_in_place_of(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def many_files(folder: Path) -> None:
    for number in range(5_000):
        os.mknod(f"{folder}/{number}.json")


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


NAMES = ("config.json", "tokenizer.json", "template.json", "model.safetensors")
FILES: dict[str, Damage] = {
    **{f"{name}: a FIFO": fifo(name) for name in NAMES},
    **{f"{name}: a link to a device": linked(name, "/dev/zero") for name in NAMES},
    **{f"{name}: a link to itself": linked(name, name) for name in NAMES},
    **{f"{name}: a link to nothing": linked(name, "nothing") for name in NAMES if name != "template.json"},
    **{f"{name}: a folder": folder_in_place_of(name) for name in NAMES if name != "template.json"},
    **{f"{name}: a terabyte of nothing": sparse(name, TERABYTE) for name in NAMES},
    **{f"{name}: deep": written(name, '{"a":' + "[" * 300_000) for name in NAMES[:3]},
    **{f"{name}: no UTF-8": written(name, b"\xff\xfe{") for name in NAMES[:3]},
    **{f"{name}: a list": written(name, "[1]") for name in NAMES[:3]},
    **{f"{name}: empty": written(name, "") for name in NAMES[:3]},
    **{f"{name}: an endless number": written(name, '{"a": ' + "1" * 1_000_000 + "}") for name in NAMES[:3]},
    "a FIFO beside the weights": fifo("other.safetensors"),
    "an index that is a device": linked("model.safetensors.index.json", "/dev/zero"),
    "a deep index": written("model.safetensors.index.json", '{"weight_map":' * 100_000),
    "an index of a terabyte": lambda folder: (
        written("model.safetensors.index.json", "{")(folder),
        sparse("model.safetensors.index.json", TERABYTE)(folder),
    )[0],
    "an index of numbers": written("model.safetensors.index.json", '{"weight_map": {"a": 5}}'),
    "an index that leads out of the folder": written(
        "model.safetensors.index.json", '{"weight_map": {"a": "../../../../etc/passwd"}}'
    ),
    "an index without a map": written("model.safetensors.index.json", "{}"),
    "thousands of files": many_files,
    "pickled weights alone": pickled_only,
}


def changed(name: str, *path: str, to: object) -> Damage:
    """One value of a JSON file."""

    def damage(folder: Path) -> None:
        whole = json.loads((folder / name).read_text())
        row = whole
        for key in path[:-1]:
            row = row[key]
        row[path[-1]] = to
        (folder / name).write_text(json.dumps(whole))

    return damage


ABSURD = {
    "num_hidden_layers": (10**9, 0, -1, "two", [2], None, 1.5, True),
    "hidden_size": (2**31 - 1, 10**4000, -16, {"a": 1}),
    "vocab_size": (2**31 - 1, 1, "x" * 100_000),
    "intermediate_size": (2**31 - 1, 0),
    "num_attention_heads": (2**31 - 1, 3),
    "num_key_value_heads": (2**31 - 1, 2),
    "head_dim": (2**31 - 2, 7),
    "max_position_embeddings": (10**12, 0),
    "rms_norm_eps": (0, float("nan"), float("inf"), "small"),
    "rope_theta": (0, -1, 10**400, "many"),
    "rope_scaling": ([1], "yarn", {"rope_type": "x" * 100_000}),
    "architectures": ([], ["X" * 100_000], [["Qwen3ForCausalLM"]], "Qwen3", 5, ["\x1b[2J\n"]),
    "layer_types": (5, ["sliding_attention"]),
    "hidden_act": ("\n" * 10_000, 5),
    "quantization_config": ({"bits": 1},),
}
CONFIG = {
    f"{name} {index}": changed("config.json", name, to=value)
    for name, values in ABSURD.items()
    for index, value in enumerate(values)
}

LONG = "x" * 1_000_000
TOKENIZER: dict[str, Damage] = {
    "an id of 31 bits": changed("tokenizer.json", "model", "vocab", "c", to=2**31 - 1),
    "an id of 32 bits": changed("tokenizer.json", "model", "vocab", "c", to=2**32 - 1),
    "an id of 64 bits": changed("tokenizer.json", "model", "vocab", "c", to=2**64),
    "an id below zero": changed("tokenizer.json", "model", "vocab", "c", to=-1),
    "an id that is a text": changed("tokenizer.json", "model", "vocab", "c", to="3"),
    "an id beyond the embeddings": changed("tokenizer.json", "model", "vocab", "c", to=32),
    "an unknown kind of model": changed("tokenizer.json", "model", "type", to="Quantum"),
    "no model": changed("tokenizer.json", "model", to=None),
    "a vocabulary that is a list": changed("tokenizer.json", "model", "vocab", to=[1]),
    "a word for the unknown that is not there": changed("tokenizer.json", "model", to={
        "type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]], "unk_token": "?"}),
    "an unknown piece beyond the pieces": changed("tokenizer.json", "model", to={
        "type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}),
    "no pieces": changed("tokenizer.json", "model", to={"type": "Unigram", "vocab": [], "unk_id": 0}),
    "added tokens that are none": changed("tokenizer.json", "added_tokens", to=[5]),
    "a normaliser that puts in a megabyte": changed("tokenizer.json", "normalizer", to={
        "type": "Replace", "pattern": {"String": "a"}, "content": LONG}),
    "a normaliser that replaces nothing": changed("tokenizer.json", "normalizer", to={
        "type": "Replace", "pattern": {"String": ""}, "content": "b"}),
    "a normaliser of 10,000 steps": changed("tokenizer.json", "normalizer", to={
        "type": "Sequence", "normalizers": [{"type": "NFC"}] * 10_000}),
    "a broken map of characters": changed("tokenizer.json", "normalizer", to={
        "type": "Precompiled", "precompiled_charsmap": "AAAA////"}),
    "an expression that is none": changed("tokenizer.json", "pre_tokenizer", to={
        "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}),
    "a split without a way": changed("tokenizer.json", "pre_tokenizer", to={"type": "Split"}),
}  # fmt: skip
TEMPLATE: dict[str, Damage] = {
    "no parts": changed("template.json", "parts", to=[]),
    "parts that are none": changed("template.json", "parts", to=5),
    "a part of two kinds": changed("template.json", "parts", to=[{"text": "{query}", "control": "x"}]),
    "no document": changed("template.json", "parts", to=[{"text": "{query}"}]),
    "a field in a control part": changed("template.json", "parts", to=[
        {"text": "{query}"}, {"control": "{document}"}, {"text": "{document}"}]),
    "no head": changed("template.json", "head", to=None),
    "a head of another kind": changed("template.json", "head", to={"kind": LONG}),
    "a word that is no token": changed("template.json", "head", to={"kind": "words", "positive": LONG}),
    "an infinite scale": changed("template.json", "scale", to=float("inf")),
    "a scale of many digits": changed("template.json", "scale", to=10**400),
    "an unknown key": changed("template.json", LONG, to=1),
    "an unknown activation": changed("template.json", "activation", to=LONG),
}  # fmt: skip

HARMLESS: dict[str, Damage] = {
    "an added token with an absurd id": changed("tokenizer.json", "added_tokens", to=[
        {"id": 2**31, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}]),
    "a frame of tokens that are not there": changed("tokenizer.json", "post_processor", to={
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "?", "type_id": 0}}], "pair": [],
        "special_tokens": {}}),
    "a context of 10^300 tokens": changed("config.json", "rope_scaling", to={"rope_type": "yarn", "factor": 1e300}),
    "texts of many dots": changed("template.json", "default_instruction", to="." * 100_000),
}  # fmt: skip
"""What may give wrong scores, and nothing else."""
