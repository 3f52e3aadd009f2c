"""Folders of BERTs as they occur: what is honoured, and what is refused in one sentence."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minitransformer.bert import config_from_bert, from_pretrained, read_bert
from minitransformer.experiment.recipe import convert
from minitransformer.tokenizer import load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIÜéñ0123456789.,!?'()-看片"
TOKENS = [
    "[unused0]",
    *SPECIAL,
    *LETTERS,
    *(f"##{c}" for c in LETTERS),
    "Film",
    "film",
    "café",
    "cafe",
    "naïve",
]
AWKWARD = [
    "Not a BAD Film, at all!", "naïve café Ünder É", "cafe\u0301 n\u0303", "看 a 看片 film 看Film", "ABC\u200bdef\u0000 x",
    "İstanbul ß ﬁlm", "it's (a) 1999-film", "x" * 120, "Ångström", "日本語 テスト", "a\u2028b", "",
]  # fmt: skip


def save_tiny(folder: Path, **changes) -> Path:
    from transformers import BertConfig, BertModel

    settings = {
        "vocab_size": len(TOKENS),
        "hidden_size": 12,
        "num_attention_heads": 2,
        "intermediate_size": 20,
    }
    settings |= {"num_hidden_layers": 2, "max_position_embeddings": 160}
    torch.manual_seed(0)
    BertModel(BertConfig(**settings | changes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bert"))


def edit(path: Path, **changes) -> None:
    found = json.loads(path.read_text()) if path.exists() else {}
    found |= changes
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not ...}))


def refused(bert: Path, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        convert(bert, bert.parent / "start")
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message, message
    assert not (bert.parent / "start").exists()


@pytest.mark.parametrize("where", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("accents", [None, True, False])
@pytest.mark.parametrize("chinese", [True, False])
def test_letters_are_cut_as_transformers_does(bert, where, lower, accents, chinese):
    from transformers import BertTokenizer

    settings = {"do_lower_case": lower, "strip_accents": accents, "tokenize_chinese_chars": chinese}
    theirs = BertTokenizer(vocab=str(bert / "vocab.txt"), **settings)
    if where == "tokenizer.json":
        theirs.backend_tokenizer.save(str(bert / where))
    else:
        edit(bert / where, **settings)
    convert(bert, bert.parent / "start")
    ours = load_tokenizer(bert.parent / "start/tokenizer.json")
    assert len(ours.vocabulary) == len(TOKENS)
    for text in AWKWARD:
        assert ours.tokenize(text) == theirs.tokenize(text), text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"never_split": ["a"]}, ("never_split", "['a']")),
        ({"do_basic_tokenize": False}, ("do_basic_tokenize", "False")),
        ({"tokenizer_class": "RobertaTokenizer"}, ("tokenizer_class", "RobertaTokenizer")),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, ("tokenizer_class", "BertJapaneseTokenizer")),
        ({"unk_token": "<unk>"}, ("unk_token", "<unk>")),
        ({"cls_token": {"content": "<s>"}}, ("cls_token", "<s>")),
        ({"do_lower_case": "no"}, ("do_lower_case", "'no'")),
        ({"added_tokens_decoder": {"9": {"content": "[E1]"}}}, ("added token", "[E1]")),
    ],
)
def test_another_tokenizer_is_refused(bert, changes, words):
    edit(bert / "tokenizer_config.json", **changes)
    refused(bert, "tokenizer_config.json" if "E1" not in words[1] else "bert", *words)


@pytest.mark.parametrize(
    ("part", "value"),
    [("normalizer", {"type": "NFKC"}), ("pre_tokenizer", {"type": "Whitespace"}), ("model", {"type": "BPE"})],
)
def test_another_tokenizer_json_is_refused(bert, part, value):
    from transformers import BertTokenizer

    BertTokenizer(vocab=str(bert / "vocab.txt")).backend_tokenizer.save(str(bert / "tokenizer.json"))
    edit(bert / "tokenizer.json", **{part: value})
    refused(bert, "tokenizer.json", part, value["type"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        *[
            ({"model_type": kind}, ("model_type", kind))
            for kind in ("roberta", "distilbert", "albert", "electra")
        ],
        ({"position_embedding_type": "relative_key"}, ("position_embedding_type", "relative_key")),
        ({"is_decoder": True}, ("is_decoder",)),
        ({"add_cross_attention": True}, ("add_cross_attention",)),
        *[({"hidden_act": name}, ("hidden_act", name)) for name in ("gelu_new", "gelu_pytorch_tanh", "silu")],
        ({"pad_token_id": -1}, ("pad_token_id", "-1")),
        ({"num_hidden_layers": 1}, ("1 layers", "encoder.layer.1.", "no place")),
        ({"num_hidden_layers": 3}, ("3 layers", "encoder.layer.2.", "missing")),
        ({"intermediate_size": 21}, ("intermediate.dense", "21", "config.json")),
        ({"vocab_size": len(TOKENS) - 1}, ("vocab.txt", str(len(TOKENS)), "entries")),
        ({"vocab_size": len(TOKENS) + 1}, ("word_embeddings", "config.json")),
    ],
)
def test_another_config_is_refused(bert, changes, words):
    edit(bert / "config.json", **changes)
    refused(bert, *words)


@torch.no_grad()
def test_a_left_out_setting_has_bert_s_default(original, bert):
    edit(
        bert / "config.json",
        model_type=...,
        layer_norm_eps=...,
        pad_token_id=...,
        hidden_act=...,
        type_vocab_size=...,
    )
    ids = torch.arange(1, 9)[None]
    assert torch.equal(from_pretrained(bert)(ids), from_pretrained(original)(ids))


def test_every_default_is_that_of_transformers():
    from transformers import BertConfig

    assert config_from_bert({}) == config_from_bert(BertConfig().to_dict())


def test_a_second_dropout_is_named(bert):
    edit(bert / "config.json", attention_probs_dropout_prob=0.3)
    with pytest.warns(UserWarning, match=r"attention_probs_dropout_prob is 0.3.*0.1"):
        read_bert(bert)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        *[(n, b"version https://git-lfs.github.com/spec/v1\noid", ("git lfs pull", n))
          for n in ("config.json", "vocab.txt", "model.safetensors", "tokenizer_config.json")],
        ("config.json", None, ("config.json", "No such file")),
        ("config.json", b"{", ("config.json", "not JSON")),
        ("config.json", b"[]", ("config.json", "object")),
        ("config.json", b"\xff\xfe{", ("config.json", "decode")),
        ("vocab.txt", None, ("vocab.txt", "No such file")),
        ("vocab.txt", b"", ("vocab.txt", "[PAD]")),
        ("vocab.txt", "\n".join([*TOKENS[:-1], "film"]).encode(), ("vocab.txt", "'film'", "2 times")),
        ("vocab.txt", "\n".join(["", "", *TOKENS[2:]]).encode(), ("vocab.txt", "''")),
        ("vocab.txt", "\n".join(TOKENS[:4]).encode(), ("[SEP]", "4 lines")),
        ("model.safetensors", b"abc", ("model.safetensors", "complete")),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused(bert, name, content, words):
    (bert / name).unlink(missing_ok=True)
    if content is not None:
        (bert / name).write_bytes(content)
    if content != b"":
        refused(bert, *words)
    else:
        refused(bert, "vocab.txt")


@pytest.mark.parametrize("other", ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.onnx"])
def test_only_another_format_says_what_to_do(bert, other):
    (bert / "model.safetensors").rename(bert / other)
    refused(bert, "model.safetensors", other, "save_pretrained")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace("naïve", "a\u2028b"),
        lambda text: text.replace("naïve", "a\x85b"),
        lambda text: text.replace("naïve\n", ""),  # a padded embedding
    ],
)
def test_lines_of_a_vocabulary_keep_their_places(bert, change):
    text = change((bert / "vocab.txt").read_text(encoding="utf-8"))
    (bert / "vocab.txt").write_bytes(text.encode())
    _, tokens, weights = read_bert(bert)
    assert tokens[: len(TOKENS) - 1] == TOKENS[:-1]
    convert(bert, bert.parent / "start")
    kept = load_file(bert.parent / "start/model.safetensors")["encoder.embedding.weight"]
    ours = load_tokenizer(bert.parent / "start/tokenizer.json").vocabulary.ids
    assert all(torch.equal(kept[ours[t]], weights["embedding.weight"][i]) for i, t in enumerate(tokens))


@pytest.mark.parametrize("prefix", ["", "bert.", "module.", "_orig_mod.", "module.bert.", "_orig_mod.module.bert.", "bert._orig_mod."])  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_names_and_types_of_weights(original, bert, prefix, old, kind):
    state = load_file(bert / "model.safetensors")
    if old:
        state = {
            n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
            for n, v in state.items()
        }
    state = {prefix + name: value.to(kind) for name, value in state.items()}
    state |= {prefix + "embeddings.position_ids": torch.arange(9), "cls.predictions.bias": torch.zeros(3)}
    save_file(state, bert / "model.safetensors")
    found, right = read_bert(bert)[2], read_bert(original)[2]
    assert found.keys() == right.keys()
    assert all(torch.equal(found[n], right[n].to(kind).float()) for n in right)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {f"roberta.{n}": v for n, v in s.items()}, ("missing", "roberta.")),
        (lambda s: {}, ("missing", "none")),
        (lambda s: s | {"bert.embeddings.LayerNorm.bias": torch.ones(12)}, ("twice", "bert.embeddings")),
        (lambda s: s | {"embeddings.LayerNorm.beta": torch.ones(12)}, ("twice", "beta")),
        (lambda s: s | {"encoder.layer.0.adapter.weight": torch.ones(1)}, ("adapter", "no place")),
        (
            lambda s: s | {"embeddings.LayerNorm.bias": torch.full((12,), torch.nan)},
            ("LayerNorm.bias", "finite"),
        ),
        (
            lambda s: s | {"embeddings.LayerNorm.bias": torch.ones(12, dtype=torch.int8)},
            ("LayerNorm.bias", "int8"),
        ),
        (lambda s: s | {"embeddings.LayerNorm.bias": torch.ones(11)}, ("LayerNorm.bias", "[12]", "[11]")),
    ],
)
def test_other_weights_are_refused(bert, change, words):
    save_file(change(load_file(bert / "model.safetensors")), bert / "model.safetensors")
    refused(bert, *words)


def shard(bert: Path) -> tuple[dict, Path]:
    state = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    names = sorted(state)
    places = {n: f"model-0000{1 + (i > 9)}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(places.values()):
        save_file({n: state[n] for n in names if places[n] == file}, bert / file)
    index = bert / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return places, index


def test_shards_are_read(original, bert):
    shard(bert)
    found, right = read_bert(bert)[2], read_bert(original)[2]
    assert all(torch.equal(found[n], right[n]) for n in right)


@pytest.mark.parametrize("file", ["../x.safetensors", "/x.safetensors", "model.safetensors", 3])
def test_an_index_names_files_of_its_folder(bert, file):
    places, index = shard(bert)
    index.write_text(json.dumps({"weight_map": places | {min(places): file}}))
    refused(bert, "no such file" if file == "model.safetensors" else "index")


def test_a_tensor_in_two_shards_and_a_missing_shard_are_refused(bert):
    places, index = shard(bert)
    last = bert / places[max(places)]
    save_file(load_file(last) | {min(places): torch.zeros(1)}, last)
    refused(bert, index.name, "each once")
    last.unlink()
    refused(bert, last.name, "no such file")
