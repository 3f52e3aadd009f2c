"""Tables of labelled texts as they occur on other people's disks: what is read, and what is refused in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value
from datasets import Dataset as Table

from minitransformer.cli import main
from minitransformer.data import load_examples, load_imdb, load_sst2, load_sst2_test, sst2_is_present
from minitransformer.experiment.folder import checksum
from minitransformer.experiment.settings import DataConfig, RunConfig, read_settings
from minitransformer.files import data_folder, read_table

CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: train.parquet}\n---\n"


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """The folder of SST-2 in an empty mirror, whose name holds what a glob or a URL would read otherwise."""
    root = tmp_path / "my [data] für=1 *?#%20"
    (root / "stanfordnlp/sst2").mkdir(parents=True)
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(root))
    return root / "stanfordnlp/sst2"


def write(path: Path, texts: list, labels: list, column: str = "sentence") -> None:
    pq.write_table(pa.table({column: texts, "label": labels}), path)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def test_an_edited_mirror_is_read_as_it_is_now(mirror):
    file = mirror / "train.parquet"
    (mirror / "README.md").write_text(CARD)
    write(file, ["fine", "dull"], [1, 0])
    before, first = file.stat(), load_sst2("train")
    write(file, ["fine", "dull"], [0, 1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size, "size and time say that nothing has changed"
    second = load_sst2("train")
    assert (first.labels, second.labels) == ([1, 0], [0, 1]) and checksum(first) != checksum(second)
    write(file, ["fine"], [0])
    assert load_sst2("train").texts == ["fine"]


def test_another_mirror_with_equal_names_is_read(mirror, monkeypatch, tmp_path):
    other = tmp_path / "other/stanfordnlp/sst2"
    other.mkdir(parents=True)
    for folder, text in ((mirror, "here"), (other, "there")):
        (folder / "README.md").write_text(CARD)
        write(folder / "train.parquet", [text], [1])
    assert load_sst2("train").texts == ["here"]
    monkeypatch.setenv("MINITRANSFORMER_DATA", str(tmp_path / "other"))
    assert load_sst2("train").texts == ["there"]


def test_the_hubs_own_names_are_found(mirror):
    (mirror / "data").mkdir()
    write(mirror / "data/train-00001-of-00002.parquet", ["two"], [0])
    with pytest.raises(ValueError, match=r"all parts of one table, got data/train-00001-of-00002\.parquet"):
        load_sst2("train")
    write(mirror / "data/train-00000-of-00002.parquet", ["one"], [1])
    assert load_sst2("train").texts == ["one", "two"]
    write(mirror / "train.parquet", ["one"], [1])
    with pytest.raises(ValueError, match="all parts of one table") as error:
        load_sst2("train")
    assert "local mirror" in one_line(error)
    setfit = mirror.parents[1] / "SetFit/sst2"
    setfit.mkdir(parents=True)
    (setfit / "test.jsonl").write_text('{"text": "a", "label": 0, "label_text": "negative"}\n')
    assert load_sst2_test().labels == [0]


def test_an_empty_mirror_is_named(mirror):
    with pytest.raises(ValueError, match=r"SST-2 train cannot be loaded.*holds no train\.parquet") as error:
        load_sst2("train")
    one_line(error)


def test_class_names_count_and_not_their_numbers(mirror):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["positive", "negative"])})
    table = Table.from_dict({"sentence": ["fine", "dull"], "label": [0, 1]}, features=features)
    table.to_parquet(mirror / "train.parquet")
    assert load_sst2("train").labels == [1, 0]


WRONG_ROWS = {
    "unlabelled": ("fine", -1),
    "no label": ("fine", None),
    "another class": ("fine", 2),
    "half a class": ("fine", 0.5),
    "a float": ("fine", 1.0),
    "not a number": ("fine", float("nan")),
    "a huge number": ("fine", 2**60),
    "a truth value": ("fine", True),
    "a list": ("fine", [1]),
    "an odd word": ("fine", "neutral"),
    "an empty label": ("fine", ""),
    "no text": (None, 1),
    "an empty text": ("", 1),
    "white space": (" \t\u200b", 1),
    "a zero byte": ("\0", 1),
    "a number as text": (7, 1),
    "words in a list": (["fine"], 1),
}


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_a_wrong_row_is_named(mirror, name):
    text, label = WRONG_ROWS[name]
    good = [type(text)("ok") if isinstance(text, str) else text, label]
    write(mirror / "train.parquet", [good[0], text], [label, label])
    with pytest.raises(
        ValueError, match=r"train\.parquet cannot be read: row [12]: (label|sentence) must be"
    ) as e:
        load_sst2("train")
    one_line(e)
    lines = [json.dumps({"text": "good", "label": "1"}), json.dumps({"text": text, "label": label})]
    (mirror / "mine.jsonl").write_text("\n\n".join(lines))
    with pytest.raises(ValueError, match=r"mine\.jsonl cannot be read: line 3: (label|text) must be") as e:
        read_table(mirror / "mine.jsonl")
    one_line(e)


def test_only_unlabelled_reviews_have_no_label(mirror):
    folder = mirror.parents[1] / "stanfordnlp/imdb"
    folder.mkdir()
    for split, label in (("unsupervised", -1), ("train", -1)):
        write(folder / f"{split}.parquet", ["fine"], [label], "text")
    assert load_imdb("unsupervised").labels == [-1]
    with pytest.raises(ValueError, match=r"row 1: label must be .*, got -1"):
        load_imdb("train")
    write(folder / "unsupervised.parquet", ["fine"], [1], "text")
    with pytest.raises(ValueError, match="row 1: label must be one of -1, got 1"):
        load_imdb("unsupervised")


GOOD = {
    "plain.csv": b"text,label\nfine film,1\ndull film,0\n",
    "windows.csv": b"\xef\xbb\xbftext,label\r\nfine film,1\r\ndull film,0\r\n",
    "quoted.csv": b'label,sentence,more\npositive,"fine film",x\n"negative",dull film,y\n',
    "UPPER.CSV": b"text,label\nfine film,Positive\ndull film, 0\n",
    "plain.tsv": b"sentence\tlabel\nfine film\t1\ndull film\t0\n",
    "plain.jsonl": b'{"text": "fine film", "label": 1}\n\n{"text": "dull film", "label": "negative"}',
    "windows.json": b'\xef\xbb\xbf{"text": "fine film", "label": 1}\r\n{"sentence": "dull film", "label": 0}\r\n',
}


@pytest.mark.parametrize("name", GOOD)
def test_files_are_read(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(GOOD[name])
    assert read_table(path) == (["fine film", "dull film"], [1, 0])
    assert load_examples(str(path), "validation").source == f"{name} (validation)"


def test_texts_stay_as_they_are(tmp_path):
    path, texts = tmp_path / "mine.csv", ["NA", "null", "007", "a\nb", 'say "x", y', " fine ", "a\u2028b"]
    rows = ['"{}",1'.format(text.replace('"', '""')) for text in texts]
    path.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    assert read_table(path)[0] == texts


BAD = {
    "no header.csv": (
        b"fine film,1\ndull,0\n",
        "columns must be 'label' and 'text' or 'sentence', got 'fine film', '1'",
    ),
    "both.csv": (b"text,sentence,label\na,b,1\n", "columns must be"),
    "twice.csv": (b"text,label,text\na,1,b\n", "the column 'text' stands twice"),
    "comma.csv": (b"text,label\nfine, warm,1\n", "line 2: it has more fields than the header"),
    "short.csv": (b"text,label\nfine\n", "line 2: label must be .*, got None"),
    "quote.csv": (b'text,label\nfine,1\n"dull,0\n', "unexpected end of data"),
    "latin.csv": ("text,label\nschön,1\n".encode("latin-1"), "utf-8"),
    "utf16.csv": ("text,label\nfine,1\n".encode("utf-16"), "utf-8"),
    "empty.csv": (b"", "it holds no rows"),
    "header.tsv": (b"text\tlabel\n", "it holds no rows"),
    "comma.tsv": (b"text,label\nfine,1\n", "columns must be"),
    "broken.jsonl": (b'{"text": "a", "label": 1}\n{"text": \n', "line 2 is not JSON"),
    "gap.jsonl": (b'{"text": "a", "label": 1}\n\n{"text": \n', "line 3 is not JSON"),
    "list.json": (b'[{"text": "a", "label": 1}]\n', "line 1: it has no named columns"),
    "number.jsonl": (b"7\n", "line 1: it has no named columns"),
    "nan.jsonl": (b'{"text": "a", "label": NaN}\n', "line 1: label must be .*, got nan"),
    "half.jsonl": (b'{"text": "a\\ud83d", "label": 1}\n', "line 1: .*surrogates"),
    "float.csv": (b"text,label\nfine,1.0\n", r"line 2: label must be .*, got '1\.0'"),
    "text.parquet": (b"this is no parquet file", "cannot be read"),
    "mine.csv.gz": (b"x", "its name must end in one of .csv"),
    "mine.xlsx": (b"x", "its name must end in one of .csv"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_are_refused(tmp_path, name):
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_table(tmp_path / name)
    assert name in one_line(error)


def test_a_column_twice_in_parquet_and_files_that_are_none(tmp_path):
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array([1])]
    pq.write_table(pa.Table.from_arrays(columns, ["text", "text", "label"]), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match="the column 'text' stands twice"):
        read_table(tmp_path / "twice.parquet")
    (tmp_path / "folder.csv").mkdir()
    for name in ("folder.csv", "nowhere.csv"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read: there is no such file"):
            read_table(tmp_path / name)


def test_training_needs_both_labels(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("text,label\nfine,1\nwarm,1\n")
    assert load_examples(str(path), "validation").labels == [1, 1]
    with pytest.raises(ValueError, match=r"one\.csv holds only the label 1; training needs both"):
        load_examples(str(path), "train")


def test_a_relative_folder_is_found_from_the_chapters(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "chapters").mkdir()
    monkeypatch.setenv("MINITRANSFORMER_DATA", "data")
    for here in (tmp_path, tmp_path / "chapters"):
        monkeypatch.chdir(here)
        assert data_folder() == tmp_path / "data"
    monkeypatch.chdir(tmp_path / "data")
    monkeypatch.setenv("MINITRANSFORMER_DATA", "nowhere")
    with pytest.raises(ValueError, match=r"no folder 'nowhere' \(.*data/nowhere or .*nowhere\)"):
        data_folder()


def test_a_mirror_needs_no_home_of_the_hub(mirror, tmp_path):
    write(mirror / "validation.parquet", ["fine"], [1])
    (tmp_path / "file").touch()
    code = "from minitransformer.data import load_sst2; print(load_sst2('validation').labels)"
    world = os.environ | {"HF_HOME": str(tmp_path / "file"), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=world, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[1]\n", done.stderr


def test_the_hubs_cache_is_found_where_xdg_says(tmp_path):
    cached = tmp_path / "huggingface/datasets/stanfordnlp___sst2/default/0.0.0/0123/sst2-train.arrow"
    cached.parent.mkdir(parents=True)
    cached.touch()
    leave = ("MINITRANSFORMER_DATA", "HF_HOME", "HF_DATASETS_CACHE")
    world = {name: value for name, value in os.environ.items() if name not in leave}
    world |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    code = "from minitransformer.data import sst2_is_present; print(sst2_is_present())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=world, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_a_mirror_without_sst2_is_no_presence(mirror):
    assert sst2_is_present()
    mirror.rmdir()
    assert not sst2_is_present()


def mine(folder: Path, data: str) -> Path:
    """A config for a small run on files, and the files."""
    rows = [f"{'fine' if i % 2 else 'dull'} film {i},{i % 2}" for i in range(16)]
    (folder / "mine.csv").write_text("\n".join(["text,label", *rows]))
    write(folder / "other.parquet", ["fine film", "dull film"], ["positive", "negative"])
    (folder / "last.jsonl").write_text('{"text": "fine", "label": 1}\n')
    model = "{vocab_size: 50, d_model: 8, num_heads: 2, d_ff: 12, num_layers: 1, max_length: 12}"
    path = folder / "mine.yaml"
    path.write_text(f"name: mine\ndata: {data}\nmodel: {model}\ntraining: {{batch_size: 8}}\n")
    return path


def test_a_run_on_files_of_ones_own(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    config = mine(tmp_path, "{train: mine.csv, validation: other.parquet, test: last.jsonl}")
    assert read_settings(RunConfig, config).data == DataConfig(
        train="mine.csv", validation="other.parquet", test="last.jsonl"
    )
    assert main(["train", str(config)]) == 0, capsys.readouterr().err
    record = json.loads((tmp_path / "runs/mine/run.json").read_text())
    validation = load_examples("other.parquet", "validation")
    assert list(record["data"]) == ["mine.csv (train)", "other.parquet (validation)"]
    assert record["data"]["other.parquet (validation)"] == {"examples": 2, "sha256": checksum(validation)}
    for split, source in (("validation", "other.parquet (validation)"), ("test", "last.jsonl (test)")):
        capsys.readouterr()
        assert main(["evaluate", "runs/mine", "--split", split]) == 0
        assert source in capsys.readouterr().out
    assert main(["predict", "fine film", "--run", "runs/mine"]) == 0
    assert main(["train", str(config), "--resume"]) == 0, "a finished run is told, and nothing is done"
    write(tmp_path / "other.parquet", ["fine film", "dull film"], [0, 1])
    capsys.readouterr()
    assert main(["train", str(config), "--resume"]) == 2
    assert "checksum of the validation data" in capsys.readouterr().err


CONFIGS = {
    "name and file": ("{name: sst2, train: mine.csv}", "data.train must be null where data.name is 'sst2'"),
    "no validation": ("{train: mine.csv}", "data.validation must be a file"),
    "nothing": ("{min_frequency: 2}", "data.train must be a file, unless data.name is 'sst2' or 'toy'"),
    "an unknown name": ("{name: imdb}", "data.name must be one of 'sst2', 'toy', 'files', got 'imdb'"),
    "a missing file": (
        "{train: nowhere.csv, validation: mine.csv}",
        "nowhere.csv cannot be read: there is no such",
    ),
    "another ending": ("{train: mine.yaml, validation: mine.csv}", "mine.yaml"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_with_files_are_refused_in_one_sentence(monkeypatch, tmp_path, capsys, name):
    monkeypatch.chdir(tmp_path)
    data, words = CONFIGS[name]
    assert main(["train", str(mine(tmp_path, data))]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said and len(said.splitlines()) == 1


def test_a_run_without_a_test_file_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(mine(tmp_path, "{train: mine.csv, validation: other.parquet}"))]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs/mine", "--split", "test"]) == 2
    assert "names no file for the split 'test': add data.test" in capsys.readouterr().err
