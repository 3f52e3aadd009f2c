"""`predict` on what people give it: files of other systems, invisible texts, unknown words, slow pipes, thousands of lines."""

import io
import json
import os
import sys
import threading

import pytest

from book.press.floors import ROOT
from minitransformer import cli
from minitransformer.cli import SHIPPED, _check_text, _lines_of, _predict_texts, _read_texts, main
from minitransformer.evaluate import classify
from minitransformer.experiment.folder import load_run, read_answers, read_predictions, read_records

RUNS = {"words": ROOT / "book/runs/sst2_scratch", "pieces": SHIPPED}


@pytest.fixture(scope="module")
def loaded():
    return {str(folder): load_run(folder) for folder in RUNS.values()}


@pytest.fixture(params=RUNS)
def predict(request, loaded, monkeypatch, capsys):
    """Exit code, answers and complaints of `predict` on bytes from standard input, or on arguments."""
    monkeypatch.setattr(cli, "load_run", lambda folder: loaded[str(folder)])

    def ask(given, *options):
        words = list(given) if not isinstance(given, bytes) else []
        stdin = io.TextIOWrapper(io.BytesIO(given if isinstance(given, bytes) else b""))
        monkeypatch.setattr(sys, "stdin", stdin)
        code = main(["predict", "--run", str(RUNS[request.param]), "--json", *options, *words])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.split("\n") if line], err

    return ask


REFUSED = {
    "latin-1 in line 3": (b"a fine film\na dull film\ncaf\xe9\nmore\n", 2, "line 3 is not UTF-8", "0xe9"),
    "UTF-16 with a mark": ("a fine film\n".encode("utf-16"), 0, "line 1 is not UTF-8", "0xff"),
    "UTF-16, big end first": (b"\xfe\xff" + "a film\n".encode("utf-16-be"), 0, "line 1 is not UTF-8", "0xfe"),
    "UTF-16 without a mark": ("a film\nb\n".encode("utf-16-le"), 0, "line 1 holds a NUL", "UTF-16"),
    "UTF-32": ("a film\n".encode("utf-32"), 0, "line 1 is not UTF-8", "0xff"),
    "a cut character": ("a film\ncafé".encode()[:-1], 1, "line 2 is not UTF-8", "0xc3"),
    "a surrogate in UTF-8": (b"a film\n\xed\xa0\x80\n", 1, "line 2 is not UTF-8", "0xed"),
    "an overlong slash": (b"\xc0\xaf\n", 0, "line 1 is not UTF-8", "0xc0"),
    "a blank line in the middle": (b"a film\n\na film\n", 1, "line 2 is empty", ""),
    "a line of spaces": (b"a film\n \t \na film\n", 1, "line 2 is empty", ""),
    "a blank line of Windows": (b"a film\r\n\r\na film\r\n", 1, "line 2 is empty", ""),
    "a zero-width space": ("a film\n\u200b\n".encode(), 1, "line 2 is empty", ""),
    "NUL": (b"\0\n", 0, "line 1 is empty", ""),
    "control characters": (b"a film\n\x01\x1b\x7f\n", 1, "line 2 is empty", ""),
    "a line of marks of direction": ("\u200e\u200f\u2066\n".encode(), 0, "line 1 is empty", ""),
    "a soft hyphen": ("\u00ad\n".encode(), 0, "line 1 is empty", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_first_bad_line_ends_it_with_its_number(predict, name):
    content, before, *words = REFUSED[name]
    code, answers, err = predict(content)
    assert code == 2 and len(answers) == before, (answers, err)
    assert all(word in err.splitlines()[-1] for word in words) and len(err.splitlines()) == 1, err


TEXTS = {
    "a mark at the start": ("\ufeffa fine film\n".encode(), ["a fine film"]),
    "files with marks, one after the other": ("\ufeffa\n\ufeffb\n".encode(), ["a", "b"]),
    "Windows": (b"a film\r\nb film\r\n", ["a film", "b film"]),
    "Windows, twice": (b"a film\r\r\nb film\r\r\n", ["a film", "b film"]),
    "old Macs": (b"a film\rb film\r", ["a film", "b film"]),
    "no end": (b"a film\nb film", ["a film", "b film"]),
    "blank lines at the end": (b"a film\n\n \r\n\n", ["a film"]),
    "separators inside": ("a\u2028b\x0cc\x85d\x1ce\u0085f\n".encode(), ["a\u2028b\x0cc\x85d\x1ce\x85f"]),
    "tabs and spaces around": (b"\ta film \n", ["\ta film "]),
    "from right to left": ("סרט a good film\n".encode(), ["סרט a good film"]),
    "combining characters": ("a cafe\u0301 film is good\n".encode(), ["a cafe\u0301 film is good"]),
    "nothing": (b"", []),
    "only blank lines": (b"\n\n", []),
    "quotes and backslashes": (b'"a \\ film"\n', ['"a \\ film"']),
}


@pytest.mark.parametrize("name", TEXTS)
def test_neither_mark_nor_line_end_is_part_of_a_text(predict, name):
    content, texts = TEXTS[name]
    code, answers, err = predict(content)
    assert (code, [answer["text"] for answer in answers]) == (0, texts), err


def test_a_mark_does_not_change_the_answer(predict):
    texts = "all that bad\na fine film\n"
    plain, marked = predict(texts.encode()), predict(texts.encode("utf-8-sig"))
    assert plain == marked == predict(texts.replace("\n", "\r\n").encode("utf-8-sig"))
    assert plain[1] == predict(["\ufeffall that bad", "a fine film\n"])[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("这 部 电 影 很 精 彩", "7 of its tokens, as in: 这 部 电 影 很"),
        ("🎬 🍿 film", "2 of its tokens, as in: 🎬 🍿"),
    ],
)
def test_unknown_pieces_are_answered_with_a_warning(predict, text, words):
    code, answers, err = predict(["a fine film", text])
    assert code == 0 and len(answers) == 2
    assert "warning: text 2 is mostly unknown" in err and words in err and err.count("\n") == 1, err


def test_a_very_long_line_is_answered_with_a_warning(predict):
    code, answers, err = predict(b"a good film " * 90_000 + b"\nbad\n")
    assert code == 0 and [len(answer["text"]) for answer in answers] == [1_080_000, 3]
    assert "line 1 has 270002 tokens" in err and err.count("\n") == 1, err


def test_bytes_in_arguments_and_halves_of_characters_are_refused(predict):
    code, answers, err = predict(["a fine film", os.fsdecode(b"caf\xe9"), "never"])
    assert code == 2 and len(answers) == 1 and "text 2 is not UTF-8" in err and "0xe9" in err, err
    assert "half of a character" in predict(["\ud83c"])[2]


def test_a_text_that_begins_with_a_dash_is_told_how(predict):
    code, _, err = predict(["-boring"])
    assert code == 2 and "predict -- '-boring'" in err and err.count("\n") == 1, err
    code, answers, err = predict(["--", "-boring", "--json"])
    assert code == 0 and [answer["text"] for answer in answers] == ["-boring", "--json"], err


def test_a_tokenizer_that_drops_everything_is_a_refusal(loaded):
    tokenizer = loaded[str(SHIPPED)][2]
    with pytest.raises(ValueError, match="line 9 is empty"):
        _check_text("line 9", "\u0301", tokenizer)


def test_without_standard_input_the_sentence_says_what_to_do(predict, monkeypatch):
    with pytest.raises(ValueError, match="no standard input"):
        list(_read_texts([], None))


def test_lines_do_not_depend_on_where_the_reading_was_cut():
    content = "\ufeffé\r\nzwei\r\r\n\rdrei\n\n\r\r".encode() * 3

    class Slowly(io.BytesIO):
        def read1(self, size=-1):
            return super().read1(self.step)

    for step in (1, 2, 3, 5, 100):
        stream = Slowly(content)
        stream.step = step
        lines = [line for window in _lines_of(stream) for line in window]
        assert [line for line in lines if line.strip("\ufeff\r")] == [*["\ufeffé", "zwei", "drei"] * 3]


def test_each_line_of_a_slow_pipe_is_answered_before_the_next_comes(loaded, monkeypatch):
    """The other end writes a line only when it has read the answer to the one before."""
    monkeypatch.setattr(cli, "load_run", lambda folder: loaded[str(folder)])
    (questions, ask), (hear, answers) = os.pipe(), os.pipe()
    with open(answers, "w", encoding="utf-8") as out, open(questions, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdout", out)
        texts = _read_texts([], stdin)
        job = threading.Thread(target=_predict_texts, args=(RUNS["words"], texts, False), daemon=True)
        job.start()
        with open(ask, "w", encoding="utf-8") as there, open(hear, encoding="utf-8") as back:
            for text in ("a fine film", "a dull film"):
                there.write(text + "\n")
                there.flush()
                assert back.readline().rstrip("\n").endswith(text)
            there.close()
            job.join(60)
    assert not job.is_alive()


def test_answers_do_not_depend_on_their_neighbours(loaded):
    """Not in the printed digits: alone, in any order, in batches of any size."""
    sentences = [
        " ".join(["a", "dull", "but", "fine", "film", "of", "good", "bad", "plots"][i % 9 :][: i % 7 + 1])
        for i in range(60)
    ]
    sentences += ["not " * n + "a bad film" for n in range(20)]
    for _, model, tokenizer in loaded.values():
        alone = [classify(model, tokenizer, [text])[0] for text in sentences]
        assert classify(model, tokenizer, sentences) == alone
        assert classify(model, tokenizer, sentences[::-1], batch_size=7) == alone[::-1]


def test_batches_hold_texts_of_similar_length_and_answers_keep_their_order(loaded, monkeypatch):
    _, model, tokenizer = loaded[str(RUNS["words"])]
    shapes = []
    with model.register_forward_pre_hook(lambda module, given: shapes.append(tuple(given[0].shape))):
        texts = ["film " * (1 + i % 40) for i in range(80)]
        assert [answer.text for answer in classify(model, tokenizer, texts, 8)] == texts
    batches = [shape for shape in shapes if shape[0] > 1]
    assert len(batches) == 10 and sum(n * width for n, width in batches) <= 1.1 * sum(
        len(t.split()) + 2 for t in texts
    )


def test_separators_inside_a_record_do_not_cut_it(tmp_path):
    """JSON may hold U+2028 and U+0085 as they are; only a line feed ends a line."""
    record = {"kind": "step", "text": "a\u2028b\x85c", "positive": 0.9}
    line = json.dumps(record, ensure_ascii=False) + "\n"
    (tmp_path / "metrics.jsonl").write_text(line, encoding="utf-8")
    (tmp_path / "predictions.jsonl").write_text(line, encoding="utf-8")
    assert read_records(tmp_path, "step") == read_predictions(tmp_path) == [record]
    answer = dict.fromkeys(("positive", "label", "correct", "words", "negation", "contrast"), 1) | {
        "text": "a\u2028b"
    }
    (tmp_path / "answers_test.jsonl").write_text(
        json.dumps(answer, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert len(read_answers(tmp_path, "test")) == 1
