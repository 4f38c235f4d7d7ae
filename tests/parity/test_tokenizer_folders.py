"""Tokenizers as model folders hold them, with files of several ages beside the vocabulary: the ids of transformers' AutoTokenizer."""

import json
import os

import pytest
from test_tokenizers import decode, encode

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402

END = "<|endoftext|>"
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("1", "2"), ("a", "t")]
TEXTS = ["<user>the hat<bot>the the<pad><eos>", "the the", " the", "12 <a> the<a>the", "<|endoftext|>the<|endoftext|>", "x  <lr>  y",
         "<user> <user>", "", "the <word>the <word> word", "<pad>the", "12\n\nthe é e\u0301"]


def vocabulary() -> dict:
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet()) + [a + b for a, b in MERGES] + [END]
    return {token: number for number, token in enumerate(tokens)}


SIZE = len(vocabulary())


def flags(content, **other) -> dict:
    return {"content": content, "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False, **other}


def write(folder, vocabulary_in="files", prefix=False, model_type=None, **files):
    """`files`: the contents of NAME.json. vocabulary_in: "files" (vocab.json and merges.txt) or "json" (tokenizer.json)."""
    folder.mkdir(exist_ok=True)
    if vocabulary_in == "files":
        (folder / "vocab.json").write_text(json.dumps(vocabulary()))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in MERGES) + "\n")
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary(), MERGES))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        if "NeoX" in files.get("tokenizer_config", {}).get("tokenizer_class", ""):
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(END, special=True)])
        tokenizer.save(str(folder / "tokenizer.json"))
    if model_type:
        files["config"] = {"model_type": model_type}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def check(folder, texts=TEXTS):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    expected = [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert encode(folder, texts) == expected
    return theirs, expected


GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
DECODER = {str(SIZE - 1): flags(END), str(SIZE): flags("<user>"), str(SIZE + 1): flags("<bot>", special=False, normalized=True),
           str(SIZE + 2): flags("<lr>", lstrip=True, rstrip=True), str(SIZE + 3): flags("<word>", single_word=True, special=False)}
FOLDERS = {
    "added_tokens.json": {"added_tokens": {"<user>": SIZE, "<bot>": SIZE + 1, "<pad>": SIZE + 2}, "tokenizer_config": GPT2,
                          "special_tokens_map": {"pad_token": "<pad>", "additional_special_tokens": ["<user>", "<bot>"]}},
    "added_tokens.json alone": {"added_tokens": {"<a>": SIZE + 1, "<user>": SIZE}, "model_type": "gpt2"},
    "a new eos": {"tokenizer_config": {**GPT2, "eos_token": "<eos>"}},
    "a map with flags": {"tokenizer_config": GPT2,
                         "special_tokens_map": {"eos_token": {"content": "<eos>", "lstrip": True, "rstrip": False, "normalized": False,
                                                              "single_word": False}}},
    "decoder": {"tokenizer_config": {**GPT2, "added_tokens_decoder": DECODER}},
    "decoder before the older files": {"tokenizer_config": {**GPT2, "added_tokens_decoder": DECODER},
                                       "added_tokens": {"<pad>": SIZE}, "special_tokens_map": {"eos_token": "<eos>"}},
    "tokens of the model's own": {"tokenizer_config": {**GPT2, "user_token": "<user>", "extra_special_tokens": ["<bot>", "<a>"],
                                                       "pad_token": "<pad>"}},
    "a plain class": {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": DECODER,
                                           "pad_token": "<pad>"}},
}


@pytest.mark.parametrize("where", ["files", "json"])
@pytest.mark.parametrize("name", FOLDERS)
def test_added_and_special_tokens(tmp_path, where, name):
    if name == "a plain class" and where == "files":
        pytest.skip("transformers opens no such folder")
    folder = write(tmp_path / "t", where, **FOLDERS[name])
    theirs, expected = check(folder)
    assert any(i >= SIZE for ids in expected for i in ids)  # the files matter
    assert decode(folder, [expected[1]]) == [theirs.decode(expected[1]).encode()]


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizerFast", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize("configured", [None, False, True])
@pytest.mark.parametrize("prefix", ["files", False, True])
def test_prefix_space(tmp_path, kind, configured, prefix):
    if prefix == "files" and kind in ("PreTrainedTokenizerFast", None):
        pytest.skip("transformers opens no such folder")
    if prefix != "files" and kind == "Qwen2Tokenizer":
        pytest.skip("transformers puts this class's expression in place of the file's")
    config = {} if kind is None else {"tokenizer_class": kind}
    if configured is not None:
        config["add_prefix_space"] = configured
    write(tmp_path / "t", "files" if prefix == "files" else "json", prefix is True, tokenizer_config=config)
    check(tmp_path / "t")


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_the_class_may_follow_from_the_model(tmp_path, model_type):
    check(write(tmp_path / "t", "json", prefix=True, model_type=model_type))


def test_a_class_that_is_not_known_is_named(tmp_path):
    from test_tokenizers import probe

    folder = write(tmp_path / "t", tokenizer_config={"tokenizer_class": "CLIPTokenizer"})
    error = probe("encode", folder, ok=False).decode()
    assert "CLIPTokenizer" in error and "save_pretrained" in error


WORDS = "the small boat went over the cold lake and came back again before noon user bot".split()
SP_TEXTS = ["<user>the small<bot> boat", "the small", "<user> the", "the<bot>the <user>", "</s>the<s>", "<user><bot>", "the  lake", "<x>the"]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sp")
    (folder / "c.txt").write_text("".join(f"{' '.join(WORDS[i:] + WORDS[:i])}.\n" for i in range(len(WORDS))) * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "c.txt"), model_prefix=str(folder / "m"), vocab_size=340, model_type="bpe", byte_fallback=True,
        character_coverage=1.0, minloglevel=2, remove_extra_whitespaces=False, normalization_rule_name="identity")
    return (folder / "m.model").read_bytes()


LLAMA = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
SP_FOLDERS = {
    "added_tokens.json": {"tokenizer_config": LLAMA, "added_tokens": {"<user>": 340, "<bot>": 341}},
    "special": {"tokenizer_config": LLAMA, "added_tokens": {"<user>": 340, "<bot>": 341},
                "special_tokens_map": {"additional_special_tokens": ["<user>", "<bot>"], "pad_token": "<x>"}},
    "decoder": {"tokenizer_config": {**LLAMA, "added_tokens_decoder": {
        "0": flags("<unk>"), "1": flags("<s>"), "2": flags("</s>"), "340": flags("<user>"), "341": flags("<bot>", rstrip=True)}}},
    "legacy": {"tokenizer_config": {**LLAMA, "legacy": True}, "added_tokens": {"<user>": 340, "<bot>": 341}},
    "no prefix": {"tokenizer_config": {**LLAMA, "add_prefix_space": False}, "added_tokens": {"<user>": 340, "<bot>": 341}},
}


@pytest.mark.parametrize("name", SP_FOLDERS)
def test_sentencepiece_with_added_tokens(tmp_path, sentencepiece_model, name):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model)
    for file, content in SP_FOLDERS[name].items():
        (tmp_path / f"{file}.json").write_text(json.dumps(content))
    theirs, expected = check(tmp_path, SP_TEXTS)
    assert max(map(max, expected)) >= 340
    # Decoded together, prompt and continuation are the text again.
    ids = [i for i in expected if not {1, 2} & set(i)]
    assert decode(tmp_path, ids) == [theirs.decode(i).encode() for i in ids]


@pytest.mark.parametrize("kind", ["LlamaTokenizerFast", "PreTrainedTokenizerFast"])
def test_a_translation_beside_the_model(tmp_path, sentencepiece_model, kind):
    """tokenizer.json says which tokens were added; the model cuts the text."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made/tokenizer.model").write_bytes(sentencepiece_model)
    (tmp_path / "made/tokenizer_config.json").write_text(json.dumps(LLAMA))
    made = transformers.AutoTokenizer.from_pretrained(tmp_path / "made")
    made.add_tokens([AddedToken("<user>", special=True), AddedToken("<bot>")])
    made.save_pretrained(tmp_path / "t")
    (tmp_path / "t/tokenizer.model").write_bytes(sentencepiece_model)
    (tmp_path / "t/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    assert (tmp_path / "t/tokenizer.json").exists()
    check(tmp_path / "t", [text for text in SP_TEXTS if "<x>" not in text])
