"""The model inside the page: it cuts texts, computes and refuses as the package does."""

import json
import os
import sys
import unicodedata
from pathlib import Path

import pytest
import torch

from book.play import weights
from book.play.__main__ import preview
from book.play.measure import RECORD, measured
from book.press.floors import ROOT
from minitransformer.cli import _check_text
from minitransformer.data import load_sst2, load_sst2_test, sst2_is_present, toy_reviews
from minitransformer.experiment.folder import load_run
from minitransformer.model import ModelConfig, TransformerForSequenceClassification
from minitransformer.tokenizer import load_tokenizer
from tests.book.test_pages import browser  # noqa: F401

pytestmark = pytest.mark.browser
AWKWARD = [
    "not a bad film at all",
    "  spaces\tand\u00a0no\u2003breaks\u200b ",
    "Großartig! ÇA VA? ΣΊΣΥΦΟΣ İstanbul ﬁne Ⅷ ½ x²",
    "it did n't work , does n't it ? didn't, wasn n'then",
    "one<br />two<BR>three<br/ >four < b and br /> DO N'T -LRB- so -RRB-",
    "-lrb- a film -rrb- -LRB- A FILM -RRB-",
    "電影很好 この映画は 영화 हिन्दी فيلم جميل סרט",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪 :-) ¯\\_(ツ)_/¯ $5 €7 50% a_b __init__",
    "naïve café, cafe\u0301 and zalgo z̷̢̛a̶l̴g̵o̸",
    "o" * 100 + " " + "o" * 101,
    "a\x00b\x07c\x1cd\x85e\ufeff f\ufffdg",
    "[CLS] [SEP] [UNK] [MASK] ##ing",
    "constructor __proto__ toString hasOwnProperty",
    "“quotes” — dashes… ‘n’t’ n't",
]
RECLASSED = "\u166d\u1734\u1885\u1886"  # signs that Unicode has classed anew since the library's tables
SENTENCES = [
    "not a bad film at all",
    "a bad film",
    "the acting is fine , but the script is a mess",
    "it is one of the most honest and moving films of the year",
    "👍",
    "電影",
    "never dull , never wise",
]
LOADER = """
window.models = {}; window.encoder = makeEncoder();
window.play = { model: (n, header) => { models[n] = { header, pieces: [] }; }, piece: (n, i, t) => { models[n].pieces[i] = t; } };
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, Path]:
    """Folders of two small random models that between them have every part that the page knows."""
    found = {}
    for name, options in {
        "pre": {"norm_first": True, "pooling": "cls", "activation": "relu"},
        "post": {"norm_first": False, "pooling": "mean", "embedding_norm": True, "type_vocab_size": 2},
    }.items():
        torch.manual_seed(3)
        _, _, tokenizer = load_run(weights.MODELS["first"])
        sizes = {"d_model": 24, "num_heads": 3, "d_ff": 40, "num_layers": 3, "max_length": 30}
        config = ModelConfig(vocab_size=len(tokenizer.vocabulary), **sizes, **options)
        model = TransformerForSequenceClassification(config)
        for value in model.parameters():
            value.data.normal_(std=0.3)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        tokenizer.max_length = 30
        tokenizer.save(folder / "tokenizer.json")
        found[name] = folder
    return found


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory, tiny):
    """A bare page with the encoder and all weights: those of the book, and those of the small random models."""
    folder = tmp_path_factory.mktemp("encoder")
    names = []
    for model, source in {**weights.MODELS, **tiny}.items():
        for name, encoding, text in weights.scripts(model, source, exact=model in tiny):
            (folder / name).write_text(text, encoding=encoding)
            names.append(name)
    tags = "".join(f'<script src="{name}"></script>' for name in names)
    code = (ROOT / "book/play/encoder.js").read_text(encoding="utf-8")
    (folder / "page.html").write_text(
        f'<meta charset="utf-8"><script>{code}\n{LOADER}</script>{tags}', encoding="utf-8"
    )
    page = browser.new_page()
    page.goto((folder / "page.html").as_uri())
    page.evaluate(
        "() => { for (const m of Object.values(models)) m.model = encoder.unpack(m.header, m.pieces); }"
    )
    yield page
    page.close()


def run(page, name: str, text: str, change: dict | None = None) -> dict:
    """What the page computes for a text: logits, and each layer's stream."""
    code = """([name, text, change]) => {
        const { model } = models[name], { ids } = encoder.read(text, model.tokenizer);
        const { logits, states } = encoder.run(model, ids, change);
        return { ids, logits, states: states.map((state) => Array.from(state)) };
    }"""
    return page.evaluate(code, [name, text, change or {}])


def texts() -> list[str]:
    if os.environ.get("MINITRANSFORMER_DATA") and sst2_is_present():
        return [*load_sst2("validation").texts, *load_sst2_test().texts]
    return toy_reviews(500, seed=0).texts


@pytest.mark.parametrize("name", weights.MODELS)
def test_the_page_cuts_texts_as_python_does(page, name):
    _, _, tokenizer = load_run(weights.MODELS[name])
    for some in (AWKWARD, texts()):
        code = "([name, texts]) => texts.map((text) => encoder.tokenize(text, models[name].model.tokenizer))"
        cut = page.evaluate(code, [name, some])
        wrong = [
            (t, c, tokenizer.tokenize(t))
            for t, c in zip(some, cut, strict=True)
            if c != tokenizer.tokenize(t)
        ]
        assert not wrong, f"{len(wrong)} of {len(some)} differ: {wrong[:2]}"


@pytest.mark.parametrize("name", weights.MODELS)
def test_the_page_cuts_at_every_character_as_python_does(page, name):
    _, _, tokenizer = load_run(weights.MODELS[name])
    letters = [chr(i) for i in range(1, sys.maxunicode) if not 0xD800 <= i < 0xE000]
    old = [letter for letter in letters if unicodedata.ucd_3_2_0.category(letter) not in ("Cn", "Co")]
    some = [f"a{letter}b" for letter in old]  # newer ones are not in the library's tables
    code = "([name, texts]) => texts.map((text) => encoder.tokenize(text, models[name].model.tokenizer))"
    cut = page.evaluate(code, [name, some])
    wrong = {t[1] for t, found in zip(some, cut, strict=True) if found != tokenizer.tokenize(t)}
    assert wrong <= set(RECLASSED), sorted(map(hex, map(ord, wrong)))


@pytest.mark.parametrize("name", ["pre", "post"])
def test_every_layer_of_a_small_model_is_pythons(page, tiny, name):
    tokenizer = load_tokenizer(tiny[name] / "tokenizer.json")
    model = TransformerForSequenceClassification.from_pretrained(tiny[name])
    for text in (*SENTENCES, "a " * 50):
        found = run(page, name, text)
        assert found["ids"] == tokenizer.encode(text)
        ids = torch.tensor([found["ids"]])
        with torch.no_grad():
            x = model.encoder.embed(ids)
            states = [x]
            for layer in model.encoder.layers:
                states.append(x := layer(x, torch.ones_like(ids, dtype=torch.bool)))
            logits = model(ids)[0]
        for ours, theirs in zip(states, found["states"], strict=True):
            torch.testing.assert_close(torch.tensor(theirs), ours.flatten(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.tensor(found["logits"]), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["pre", "post"])
def test_interventions_do_what_they_say(page, tiny, name):
    """Each of them is also a change of the weights or of the mask, which Python can make."""
    text, layer, head, hidden, order = "not a bad film", 1, 2, 3, [3, 0, 5, 1, 2, 4]
    plain = run(page, name, text)["logits"]
    for kind, change in {
        "off": {"off": [[layer, head]]},
        "hidden": {"hidden": hidden},
        "unscaled": {"unscaled": True},
        "order": {"order": order},
    }.items():
        model = TransformerForSequenceClassification.from_pretrained(tiny[name])
        ids = torch.tensor([load_tokenizer(tiny[name] / "tokenizer.json").encode(text)])
        mask = torch.ones(1, 6, 6, dtype=torch.bool)
        with torch.no_grad():
            if kind == "off":
                D = model.config.d_model // model.config.num_heads
                model.encoder.layers[layer].self_attn.out_proj.weight[:, head * D : (head + 1) * D] = 0
            elif kind == "hidden":
                mask[0, :, hidden] = False
                mask[0, hidden, hidden] = True
            elif kind == "unscaled":
                for each in model.encoder.layers:
                    factor = (model.config.d_model // model.config.num_heads) ** 0.5
                    each.self_attn.q_proj.weight *= factor
                    each.self_attn.q_proj.bias *= factor
            else:
                table = model.encoder.positions.encoding
                table[:6] = table[order].clone()
            x = model.encoder.embed(ids)
            for each in model.encoder.layers:
                x = each(x, mask)
            wanted = model.classify(model.encoder.norm(x), torch.ones_like(ids, dtype=torch.bool))[0]
        found = torch.tensor(run(page, name, text, change)["logits"])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert (found - torch.tensor(plain)).abs().max() > 1e-3, f"{kind} changes nothing"


@pytest.mark.parametrize("name", weights.MODELS)
def test_the_rounded_models_answer_as_their_weights_say(page, name):
    _, model, tokenizer = load_run(weights.MODELS[name])
    exact = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(weights.rounded_weights(name, exact))
    for text in SENTENCES:
        with torch.no_grad():
            wanted = model(torch.tensor([tokenizer.encode(text)]))[0]
        found = torch.tensor(run(page, name, text)["logits"])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_rounding_changes_few_verdicts():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record.keys() == weights.MODELS.keys()
    for name, found in record.items():
        assert found["texts"] == 872 + 1821 and found["same_verdict"] >= 0.995, name
    if (
        os.environ.get("MINITRANSFORMER_DATA") and sst2_is_present()
    ):  # the small one, because it takes seconds
        assert measured("first")["same_verdict"] == pytest.approx(record["first"]["same_verdict"], abs=2e-3)


def test_the_scripts_stay_small(tmp_path):
    sizes: dict[str, list[int]] = {}
    for model, folder in weights.MODELS.items():
        for name, encoding, text in weights.scripts(model, folder):
            (tmp_path / name).write_text(text, encoding=encoding)
            sizes.setdefault(model, []).append((tmp_path / name).stat().st_size)
    assert sum(sizes["first"]) <= 2**20
    assert max(sizes["shipped"]) <= 4e6 and sum(sizes["shipped"]) <= 20e6


@pytest.fixture(scope="module")
def live(browser, tmp_path_factory):
    """The widget with both models loaded, from a folder that no other process writes."""
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: complaints.append(r.url) if r.url.startswith("http") else None)
    page.goto(preview("live-model", tmp_path_factory.mktemp("live")).as_uri())
    page.locator("#live-model [data-load]").click()
    page.locator("#live-model [data-model=shipped] [data-probability]").wait_for(timeout=60_000)
    yield page
    page.close()
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "text", ["not a bad film at all", "a bad film", "👍 film", "電影 bad", "dull " * 10_000]
)
def test_both_models_answer_as_you_type(live, text):
    live.locator("#live-model textarea").fill(text)
    for name, folder in weights.MODELS.items():
        card = live.locator(f"#live-model [data-model={name}]")
        live.wait_for_function(
            "([n, t]) => n.dataset.text === t", arg=[card.element_handle(), text], timeout=60_000
        )
        _, model, tokenizer = load_run(folder)
        model.load_state_dict(weights.rounded_weights(name, model.state_dict()))
        with torch.no_grad():
            wanted = model(torch.tensor([tokenizer.encode(text)])).softmax(-1)[0]
        assert card.locator("[data-label]").inner_text() == ["negative", "positive"][wanted.argmax()]
        assert float(card.locator("[data-probability]").inner_text()) == pytest.approx(
            wanted.max().item(), abs=2e-3
        )
        warned = card.locator(".play-warning").count() > 0
        assert warned == (
            len(tokenizer.tokenize(text)) + 2 > tokenizer.max_length or unknown(tokenizer, text)
        )


def unknown(tokenizer, text: str) -> bool:
    ids = tokenizer.encode(text)[1:-1]
    return 2 * sum(i == tokenizer.vocabulary.ids["[UNK]"] for i in ids) > len(ids)


@pytest.mark.parametrize("text", ["", "  \n ", "\u200b", "\u2028\u00a0"])
def test_what_predict_refuses_the_page_refuses(live, text):
    live.locator("#live-model textarea").fill("a film")
    live.locator("#live-model textarea").fill(text)
    for name, folder in weights.MODELS.items():
        card = live.locator(f"#live-model [data-model={name}]")
        live.wait_for_function(
            "([n, t]) => n.dataset.text === t", arg=[card.element_handle(), text], timeout=60_000
        )
        assert card.locator("[data-label]").count() == 0
        with pytest.raises(ValueError) as error:
            _check_text("the text", text, load_run(folder)[2])
        assert card.locator("p").first.inner_text().lower().rstrip(".") == str(error.value).lower()


@pytest.mark.parametrize("text, why", [("'a\\ud800b'", "half of a character"), ("'a\\0b'", "a NUL")])
@pytest.mark.parametrize("name", weights.MODELS)
def test_what_no_keyboard_types_is_refused(page, name, text, why):
    assert why in page.evaluate(f"encoder.read({text}, models.{name}.model.tokenizer).refusal")
