"""lm-evaluation-harness on `refract serve`: the log-likelihoods of `--model hf` on the same model, its accuracies, and evaluation.json.

The harness and what it needs are 635 MB that nothing else uses: these tests skip where it is not installed (pip install 'lm-eval[api]==0.4.13').
"""
import json
import os
import pathlib
import subprocess
import sys

import numpy
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))
evaluate = pytest.importorskip("refract.evaluate")

CHOICES = {"task": "choices", "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "label",
           "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True},
                           {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}]}
PAGES = {"task": "pages", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{page}}",
         "metric_list": [{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
                         {"metric": "byte_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}]}
WRITTEN = {"task": "written", "output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
           "generation_kwargs": {"until": [".", "\n"], "do_sample": False, "max_gen_toks": 12},
           "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}
NAMES = ["cat", "dog", "bird", "fox"]
DOCUMENTS = {"choices": [{"question": f"One day, a {a} met a", "choices": [f" {b}.", " cricket who sang", " old woman", " the the"], "label": i % 4}
                         for i, (a, b) in enumerate((a, b) for a in NAMES for b in NAMES)],
             "pages": [{"page": "One day, a tiny cricket laughed. " * n + "It was n\u00e9ver seen again.\n"} for n in (1, 3, 9)],
             "written": [{"question": f"One day, a {name}", "answer": " laughed"} for name in NAMES]}


@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    """A run with a byte-level BPE, its export for transformers, and tasks of files."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed; see the head of this file")
    folder = tmp_path_factory.mktemp("evaluate")

    def refract(*arguments):
        subprocess.run([str(program), *arguments], cwd=folder, check=True, capture_output=True, env=dict(os.environ, XDG_CACHE_HOME=str(folder / "cache")))

    refract("tokenizer", "train", "stories:100KB", "--vocab-size", "400", "--out", "tokenizer")
    (folder / "recipe.toml").write_text('[run]\ndir = "run"\n[data]\npath = "stories:100KB"\ntokenizer = "tokenizer"\ncontext = 64\n[model]\nhidden_size = 64\n'
                                        'num_hidden_layers = 2\nnum_attention_heads = 4\n[optimizer]\nlr = 3e-3\n[train]\nsteps = 60\nbatch = 8\ndevice = "cpu"\n'
                                        '[eval]\nevery = 60\nsamples = 0\n[checkpoint]\nevery = 60\n')
    refract("train", "recipe.toml")
    refract("export", "run", "--out", "hf")
    tasks = folder / "tasks"
    tasks.mkdir()
    for task in (CHOICES, PAGES, WRITTEN):
        name = task["task"]
        (tasks / f"{name}.jsonl").write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS[name]))
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tasks / f"{name}.jsonl")}}, "test_split": "test"}
        (tasks / f"{name}.yaml").write_text(json.dumps({**task, **files}))  # JSON is YAML
    return folder


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, program, tmp_path):
    monkeypatch.setenv("REFRACT_PROGRAM", str(program))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def scored(model, arguments, folder, tasks):
    import lm_eval
    import lm_eval.tasks
    results = lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=tasks, log_samples=True, bootstrap_iters=0,
                                      task_manager=lm_eval.tasks.TaskManager(include_path=str(folder / "tasks"), include_defaults=False))
    answers = {task: [sample["resps"] for sample in sorted(results["samples"][task], key=lambda s: s["doc_id"])] for task in tasks}
    return results["results"], answers


def numbers(value):
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from numbers(part)
    else:
        yield value


def check_equal(ours, theirs, tasks):
    for task in tasks:
        a, b = list(numbers(ours[1][task])), list(numbers(theirs[1][task]))
        assert len(a) == len(b) >= 3
        for x, y in zip(a, b):
            if isinstance(y, float):
                assert x == pytest.approx(y, abs=1e-4), task
            else:
                assert x == y, task
    for metric in ("acc,none", "acc_norm,none"):
        assert ours[0]["choices"][metric] == theirs[0]["choices"][metric]


def test_log_likelihoods_are_those_of_transformers(folder):
    from lm_eval.models.huggingface import HFLM
    tasks = ["choices", "pages", "written"]
    with evaluate.served(folder / "hf") as server:
        ours = scored("local-completions", evaluate.harness_arguments(server), folder, tasks)
    # Over HTTP the harness cuts long texts into windows that are a token shorter.
    theirs = scored(HFLM(pretrained=str(folder / "hf"), device="cpu", dtype="float32", batch_size=1, max_length=63), None, folder, tasks)
    check_equal(ours, theirs, tasks)


def test_a_model_in_a_medium(folder):
    """Optics against `transformers` with the same rules; without noise, whose numbers go by a run's seed and names."""
    refract = pytest.importorskip("refract")
    transformers = pytest.importorskip("transformers")
    from lm_eval.models.huggingface import HFLM
    rules = 'transform=[{match = ".*_proj", kind = "optical", q_levels = 64, noise = false}]'
    (folder / "rules.toml").write_text(rules)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype="float32").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    dense = scored(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=64), None, folder, ["choices"])
    refract.apply_rules(model, str(folder / "rules.toml"))
    with evaluate.served(folder / "hf", [rules]) as server:
        ours = scored("local-completions", evaluate.harness_arguments(server), folder, ["choices"])
    theirs = scored(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=64), None, folder, ["choices"])
    a, b, c = (numpy.array([x for x in numbers(results[1]["choices"]) if isinstance(x, float)]) for results in (ours, theirs, dense))
    assert numpy.abs(b - c).mean() > 0.01, "the medium changes the model"
    # A number that rounding puts on the other side of a level's edge moves a score by about a hundredth; most scores have none.
    assert (numpy.abs(a - b) < 1e-4).mean() > 0.8, numpy.abs(a - b)
    assert numpy.abs(a - b).max() < 0.1 and numpy.abs(a - b).mean() < 0.1 * numpy.abs(b - c).mean()
    assert ours[0]["choices"]["acc,none"] == theirs[0]["choices"]["acc,none"]


def test_a_model_with_factors(program, folder):
    """A run of low-rank layers against its export, whose matrices are the products of the factors."""
    from lm_eval.models.huggingface import HFLM
    for arguments in (["train", "recipe.toml", "run.dir=low", 'transform=[{match=".*mlp.*", kind="low_rank", rank=8}]'], ["export", "low", "--out", "merged"]):
        subprocess.run([str(program), *arguments], cwd=folder, check=True, capture_output=True)
    with evaluate.served(folder / "low") as server:
        ours = scored("local-completions", evaluate.harness_arguments(server), folder, ["choices"])
    theirs = scored(HFLM(pretrained=str(folder / "merged"), device="cpu", dtype="float32", batch_size=1, max_length=64), None, folder, ["choices"])
    check_equal(ours, theirs, ["choices"])


def test_the_command_writes_into_the_run_and_its_report(folder, program):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "python"))

    def call(*arguments, code=0):
        done = subprocess.run([sys.executable, "-m", "refract.evaluate", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        return done

    done = call("run", "--tasks", "choices", "--include-path", "tasks", "--limit", "8")
    assert "choices: acc " in done.stdout
    call("run", "train.threads=1", "--tasks", "pages", "--include-path", "tasks")
    tree = json.loads((folder / "run" / "evaluation.json").read_text())
    assert set(tree["tasks"]) == {"choices", "pages"} and tree["harness"].startswith("lm-eval ")
    choices = tree["tasks"]["choices"]
    assert choices["samples"] == 8 and choices["limit"] == 8 and choices["model"].endswith("step-00000060")
    assert {metric["name"] for metric in choices["metrics"]} == {"acc", "acc_norm"}
    assert all(0 <= metric["value"] <= 1 and metric["higher_is_better"] for metric in choices["metrics"])
    assert tree["tasks"]["pages"]["settings"] == ["train.threads=1"]
    page = (folder / "run" / "report.html").read_text()
    assert "Tasks of lm-evaluation-harness" in page and "word_perplexity" in page
    assert "no task 'nothing'" in call("run", "--tasks", "nothing", code=1).stderr
    assert "can't be served" in call("nowhere", "--tasks", "choices", "--include-path", "tasks", code=1).stderr
    done = call("run", "--tasks", "piqa", code=1)
    assert "baber/piqa" in done.stderr and "could not be had from the Hub" in done.stderr


def test_records_hold_what_is_a_number():
    results = {"results": {"a": {"alias": "a", "sample_len": 3, "acc,none": 0.5, "acc_stderr,none": "N/A", "ppl,strict": float("nan")}, "group": {"alias": "group"}},
               "versions": {"a": 1.0}, "n-shot": {"a": 5}, "n-samples": {"a": {"original": 9, "effective": 3}}, "higher_is_better": {"a": {"acc": True}}}
    records = evaluate.records_of(results, 3, ["x=y"], "now")
    assert records == {"a": {"metrics": [{"name": "acc", "filter": "none", "value": 0.5, "stderr": None, "higher_is_better": True}], "version": 1.0,
                             "num_fewshot": 5, "samples": 3, "limit": 3, "settings": ["x=y"], "time": "now"}}


def test_a_missing_harness_is_one_line(tmp_path):
    code = "import sys; sys.modules['lm_eval'] = None; sys.argv = ['x', 'run', '--tasks', 'a']; from refract import evaluate; evaluate.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=dict(os.environ, PYTHONPATH=str(ROOT / "python")), capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'lm-eval[api]==0.4.13'" in done.stderr and "Traceback" not in done.stderr
