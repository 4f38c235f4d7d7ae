#!/usr/bin/env python3
"""Requests per second and latency of `refract serve` beside plain `generate` of transformers: one model, one device, equal prompts.

  benchmarks/serving.py MODEL --refract ./refract [--device cpu|cuda] [--threads 1] [--clients 1,8,64] [--json]
  benchmarks/serving.py --tiny --refract ./refract            # a small random Llama: a try of the script itself

A client asks for --tokens tokens behind --prompt random token ids, greedily, waits for the whole answer, and asks again. `refract serve`
is asked over HTTP. transformers is called in this process, without HTTP: "one by one" takes a request at a time, "batched" takes all
that wait as one batch, whose members are equally long and so need no padding. Both stop at the model's end token. fp32 on the CPU,
bf16 on a GPU. Before it measures it compares the log-probability of a first token. p99 of fewer than 100 requests is their maximum.
(`transformers serve` needs packages that transformers does not bring along, and is not measured.)
"""

import argparse
import concurrent.futures
import http.client
import json
import math
import os
import pathlib
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def make_tiny(folder):
    import tokenizers
    import transformers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator([], tokenizers.trainers.BpeTrainer(
        vocab_size=257, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False, special_tokens=["<end>"]))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=0, pad_token_id=0)).save_pretrained(folder)


class Served:
    """`refract serve` in a process of its own."""

    def __init__(self, options, model):
        self.tokens = options.tokens
        command = [options.refract, "serve", str(model), "--json", "--port", "0", "--slots", str(max(options.clients)),
                   "--context", str(options.prompt + options.tokens), f"train.device={options.device}",
                   f"train.precision={'bf16' if options.device == 'cuda' else 'fp32'}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})
        line = self.process.stdout.readline()
        if not line:
            sys.exit("refract serve did not start; it says why above")
        self.address = json.loads(line)["url"].removeprefix("http://")
        self.connections = threading.local()

    def request(self, prompt, **settings):
        if not hasattr(self.connections, "own"):
            self.connections.own = http.client.HTTPConnection(self.address, timeout=600)
        body = json.dumps({"prompt": prompt, "max_tokens": self.tokens, "temperature": 0, **settings})
        self.connections.own.request("POST", "/v1/completions", body)
        answer = json.loads(self.connections.own.getresponse().read())
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
        return answer

    def answer(self, prompt):
        """The number of new tokens."""
        return self.request(prompt)["usage"]["completion_tokens"]

    def first_logprob(self, prompt):
        return self.request(prompt, max_tokens=1, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"][0]

    def close(self):
        self.process.terminate()
        self.process.wait(60)


class Generate:
    """`generate` of transformers in a thread that takes up to `most` waiting requests at a time."""

    def __init__(self, options, model, most):
        import torch
        import transformers

        torch.set_num_threads(options.threads)
        self.torch, self.tokens, self.device, self.most = torch, options.tokens, options.device, most
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.bfloat16 if options.device == "cuda" else torch.float32).to(options.device).eval()
        ends = self.model.generation_config.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self.waiting = queue.Queue()
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        while (first := self.waiting.get()) is not None:
            asked = [first]
            while len(asked) < self.most and not self.waiting.empty():
                asked.append(self.waiting.get())
            try:
                for (_, future), count in zip(asked, self.generate([prompt for prompt, _ in asked])):
                    future.set_result(count)
            except Exception as error:  # the clients end with it
                for _, future in asked:
                    future.set_exception(error)

    def generate(self, prompts):
        with self.torch.inference_mode():
            ids = self.torch.tensor(prompts, device=self.device)
            made = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=self.tokens, do_sample=False,
                                       pad_token_id=0)[:, ids.shape[1]:].tolist()
        return [next((i + 1 for i, token in enumerate(row) if token in self.ends), len(row)) for row in made]

    def answer(self, prompt):
        future = concurrent.futures.Future()
        self.waiting.put((prompt, future))
        return future.result()

    def first_logprob(self, prompt):
        with self.torch.inference_mode():
            logits = self.model(self.torch.tensor([prompt], device=self.device)).logits[0, -1].float()
        return logits.log_softmax(-1).max().item()

    def close(self):
        self.waiting.put(None)
        self.thread.join()


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(part * len(values)) - 1)]


def measure(engine, prompts, clients):
    """Every client takes the next prompt when it has its answer."""
    engine.answer(prompts[0])  # warm
    waiting, latencies, tokens = queue.SimpleQueue(), [], []
    for prompt in prompts:
        waiting.put(prompt)

    def client():
        while True:
            try:
                prompt = waiting.get_nowait()
            except queue.Empty:
                return
            begin = time.perf_counter()
            tokens.append(engine.answer(prompt))
            latencies.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    seconds = time.perf_counter() - begin
    return {"clients": clients, "requests": len(latencies), "requests_per_second": len(latencies) / seconds,
            "tokens_per_second": sum(tokens) / seconds, "p50_ms": 1e3 * percentile(latencies, 0.5), "p99_ms": 1e3 * percentile(latencies, 0.99)}


def run(options, model):
    vocabulary = json.loads((pathlib.Path(model) / "config.json").read_text())["vocab_size"]
    source = random.Random(1)
    most = max(options.requests, *(2 * clients for clients in options.clients))
    prompts = [[source.randrange(vocabulary) for _ in range(options.prompt)] for _ in range(most)]
    makers = {"refract serve": lambda: Served(options, model), "generate, one by one": lambda: Generate(options, model, 1),
              "generate, batched": lambda: Generate(options, model, max(options.clients))}
    rows, first = [], {}
    for name, make in makers.items():
        engine = make()
        try:
            first[name] = engine.first_logprob(prompts[0])
            for clients in options.clients:
                rows.append({"engine": name, **measure(engine, prompts[:max(options.requests, 2 * clients)], clients)})
        finally:
            engine.close()
    tolerance = 0.1 if options.device == "cuda" else 1e-4  # bf16, fp32
    if max(first.values()) - min(first.values()) > tolerance:
        sys.exit(f"the engines do not compute the same model: the first token has the log-probabilities {first}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", nargs="?", help="a Hugging Face folder")
    parser.add_argument("--tiny", action="store_true", help="a small random model in its place")
    parser.add_argument("--refract", default=str(ROOT / "refract"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of each engine on the CPU")
    parser.add_argument("--clients", default="1,8,64", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--requests", type=int, default=128, help="for each number of clients; at least two of each client")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of a request")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (options.model is None) != options.tiny:
        parser.error("give a MODEL or --tiny")
    with tempfile.TemporaryDirectory() as scratch:
        if options.tiny:
            make_tiny(scratch)
        rows = run(options, options.model or scratch)
    if options.json:
        print(json.dumps({"device": options.device, "threads": options.threads, "prompt": options.prompt, "tokens": options.tokens, "rows": rows}))
        return
    print(f"{'':22}{'clients':>8}{'requests/s':>12}{'tokens/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for row in rows:
        print(f"{row['engine']:22}{row['clients']:8}{row['requests_per_second']:12.2f}{row['tokens_per_second']:10.1f}"
              f"{row['p50_ms']:10.1f}{row['p99_ms']:10.1f}")


if __name__ == "__main__":
    main()
