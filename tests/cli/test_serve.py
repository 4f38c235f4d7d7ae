"""refract serve: OpenAI's protocol, equal results whatever else is asked, limits, slow and rude clients, signals."""
import codecs
import concurrent.futures
import contextlib
import json
import math
import resource
import signal
import socket
import subprocess
import time

import pytest

from serving import CONTEXT, read_all, serving, trained

@pytest.fixture(scope="module")
def folder(program, tmp_path_factory):
    return trained(program, tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def server(program, folder):
    with serving(program, folder, "run", "--slots", 4, "--timeout", 2) as server:
        yield server


def generated(program, folder, *arguments):
    done = subprocess.run([str(program), "generate", "run", "--json", *arguments], cwd=folder, check=True, capture_output=True)
    return json.loads(done.stdout)


def test_what_there_is(server):
    assert server.started["model"] == "run"
    # Keys and values of two layers of 32 channels, in fp32.
    assert (server.started["slots"], server.started["context"], server.started["cache_bytes"]) == (4, CONTEXT, 4 * CONTEXT * 2 * 2 * 32 * 4)
    assert server.get("/health") == (200, {"status": "ok"})
    status, models = server.get("/v1/models")
    assert status == 200 and models["object"] == "list"
    (model,) = models["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("run", "model", CONTEXT)
    status, info = server.get("/tokenizer_info")
    assert status == 200 and "eos_token" in info and info["vocab_size"] == 257
    assert server.metric("refract_slots") == 4


def test_texts_and_tokens(server):
    text = "né 😀\n"
    status, answer = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})
    assert status == 200 and answer["tokens"] == list(text.encode()) and answer["count"] == len(text.encode())
    assert server.post("/detokenize", {"tokens": answer["tokens"]}) == (200, {"prompt": text})
    assert server.post("/detokenize", {"tokens": [300]})[0] == 400
    assert server.post("/tokenize", {})[0] == 400


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.5, "seed": 11}, {"temperature": 1, "top_p": 0.6, "seed": 3},
                                      {"temperature": 1, "top_k": 5, "seed": 4}])
def test_a_completion_is_what_generate_makes(program, folder, server, settings):
    answer = server.complete(model="run", prompt="One day", max_tokens=24, **settings)
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    made = generated(program, folder, "--prompt", "One day", "--max-tokens", "24", *options)
    (choice,) = answer["choices"]
    # A character that is not whole at the end is left out; other bytes are replaced as Python does.
    assert choice["text"] == codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(made["tokens"])) and choice["index"] == 0 and choice["logprobs"] is None
    assert choice["finish_reason"] == ("length" if len(made["tokens"]) == 24 else "stop")
    count = len(made["tokens"]) + (choice["finish_reason"] == "stop")  # the token that ends a text is one, too
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
    assert answer["object"] == "text_completion" and answer["model"] == "run" and answer["id"].startswith("cmpl-")
    by_ids = server.choice(prompt=list(b"One day"), max_tokens=24, **settings)
    assert by_ids["text"] == choice["text"]


def test_several_prompts_and_continuations(server):
    settings = {"max_tokens": 8, "temperature": 1.2, "seed": 5}
    answer = server.complete(prompt=["One", "Two"], n=3, **settings)
    texts = [choice["text"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6)) and len(set(texts[:3])) == len(set(texts[3:])) == 3
    assert answer["usage"]["prompt_tokens"] == 6
    alone = server.complete(prompt="Two", n=3, **settings)
    assert [choice["text"] for choice in alone["choices"]] == texts[3:], "a prompt's continuations depend on no other prompt"


def test_scores_are_those_of_eval(program, folder, server):
    text = "One day, a tiny cricket laughed.\n"
    (folder / "text.txt").write_text(text)
    done = subprocess.run([str(program), "eval", "run", "--data", "text.txt", "--context", "100", "--json"], cwd=folder, check=True, capture_output=True)
    evaluated = json.loads(done.stdout)
    scores = server.choice(prompt=text, max_tokens=0, echo=True, logprobs=0)["logprobs"]["token_logprobs"]
    assert scores[0] is None and evaluated["tokens"] >= len(text) - 1
    predicted = scores[1:]
    if evaluated["tokens"] == len(text):  # the corpus ends in an end of text
        ids = [*text.encode(), 256]
        predicted = server.choice(prompt=ids, max_tokens=0, echo=True, logprobs=0)["logprobs"]["token_logprobs"][1:]
    assert len(predicted) == evaluated["tokens"]
    assert -sum(predicted) / len(predicted) == pytest.approx(evaluated["loss"], abs=1e-5)  # float sums of 33 losses


def test_scores_have_the_form_that_harnesses_read(server):
    prompt = "One day"
    choice = server.choice(prompt=[list(prompt.encode())], temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    scores = choice["logprobs"]
    made = choice["text"].removeprefix(prompt)
    assert choice["text"].startswith(prompt) and len(made) == 1
    assert len(scores["tokens"]) == len(scores["token_logprobs"]) == len(scores["top_logprobs"]) == len(prompt) + 1
    assert "".join(scores["tokens"]) == choice["text"] and scores["text_offset"] == list(range(len(prompt) + 1))
    assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
    for token, score, top in zip(scores["tokens"][1:], scores["token_logprobs"][1:], scores["top_logprobs"][1:]):
        assert top[token] == score <= max(top.values()) <= 0 and 1 <= len(top) <= 2
    assert scores["token_logprobs"][-1] == max(scores["top_logprobs"][-1].values()), "the new token is the likeliest"


def test_log_probabilities_of_new_tokens(server):
    prompt = "One day"
    choice = server.choice(prompt=prompt, temperature=0, max_tokens=6, logprobs=3)
    again = server.choice(prompt=prompt + choice["text"], max_tokens=0, echo=True, logprobs=0)
    assert choice["logprobs"]["text_offset"] == list(range(6))
    # Two ways to one number: with a cache token by token, and in one pass.
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(again["logprobs"]["token_logprobs"][len(prompt):], abs=1e-4)
    assert all(len(top) == 3 for top in choice["logprobs"]["top_logprobs"])
    both = server.choice(prompt=prompt, temperature=0, max_tokens=6, logprobs=3, echo=True)
    assert both["text"] == prompt + choice["text"] and both["logprobs"]["token_logprobs"][len(prompt):] == choice["logprobs"]["token_logprobs"]
    assert server.choice(prompt=prompt, max_tokens=0, echo=True)["text"] == prompt
    assert server.choice(prompt=prompt, max_tokens=0)["text"] == ""


def joined(events):
    """The choices of streamed events, put together."""
    choices = {}
    for event in events:
        for part in event["choices"]:
            choice = choices.setdefault(part["index"], {"index": part["index"], "text": "", "logprobs": None, "finish_reason": None})
            assert choice["finish_reason"] is None, "something came behind the end"
            choice["text"] += part["text"]
            choice["finish_reason"] = part["finish_reason"]
            if part["logprobs"]:
                choice["logprobs"] = choice["logprobs"] or {name: [] for name in part["logprobs"]}
                for name, values in part["logprobs"].items():
                    choice["logprobs"][name] += values
    return [choices[index] for index in sorted(choices)]


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"n": 2, "logprobs": 2}, {"echo": True, "logprobs": 1}, {"stop": ["e", "an"]},
                                      {"temperature": 3, "logprobs": 0, "stop": "\u00e9"}, {"echo": True, "max_tokens": 0}, {"max_tokens": 1}])
def test_a_stream_is_the_answer_in_parts(server, settings):
    request = {"prompt": ["One day", "The \u00e9"], "max_tokens": 30, "temperature": 1, "seed": 9, **settings}
    whole = server.complete(**request)
    events, last = server.stream(**request, stream_options={"include_usage": True})
    assert last == "[DONE]"
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]
    assert {event["id"] for event in events} == {events[0]["id"]} and events[0]["id"] != whole["id"]
    assert joined(events) == whole["choices"]
    if request["max_tokens"] == 30 and "stop" not in request:
        assert len(events) > 30, "a token comes as it is made"


def test_a_stop_string_ends_the_text(server):
    free = server.choice(prompt="One day", max_tokens=40, temperature=0)
    stop = free["text"][10:12]
    cut = server.choice(prompt="One day", max_tokens=40, temperature=0, stop=["\u00fcber", stop])
    assert cut["text"] == free["text"][:free["text"].index(stop)] and cut["finish_reason"] == "stop"
    long = server.choice(prompt="One day", max_tokens=40, temperature=0, stop=free["text"][30:] + "never")
    assert long["text"] == free["text"] and long["finish_reason"] == "length", "what only began like a stop string is given"


REQUESTS = [{"prompt": "One day", "max_tokens": 20, "temperature": 0, "logprobs": 3},
            {"prompt": "The old woman", "max_tokens": 12, "temperature": 1.1, "seed": 5, "logprobs": 1, "n": 2},
            {"prompt": [list(b"Once upon a time, there was")], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True, "seed": 1234},
            {"prompt": list(b"x" * 300), "max_tokens": 1, "temperature": 0, "logprobs": 5, "echo": True},
            {"prompt": "", "max_tokens": 9, "top_p": 0.7, "seed": 2, "logprobs": 2},
            {"prompt": ["a", "b", "c"], "max_tokens": 5, "echo": True, "logprobs": 2, "seed": 3}]


def check_equal_results(server, rounds):
    alone = [server.complete(**request)["choices"] for request in REQUESTS]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        asked = [(i, pool.submit(server.complete, **REQUESTS[i])) for _ in range(rounds) for i in range(len(REQUESTS))]
        for i, answer in asked:
            assert answer.result()["choices"] == alone[i], "the same request has another answer beside others"


def test_answers_depend_on_their_request_alone(server):
    check_equal_results(server, rounds=6)
    server.wait_for("refract_active_sequences", 0)
    assert server.metric("refract_waiting_sequences") == 0


def test_a_model_in_a_medium(program, tmp_path):
    trained(program, tmp_path, 'transform=[{match=".*_proj", kind="optical", q_levels=64}, {match=".*self_attn", kind="optical"}]')
    with serving(program, tmp_path, "run", "--slots", 3) as server:
        check_equal_results(server, rounds=2)
        made = generated(program, tmp_path, "--prompt", "One day", "--max-tokens", "12", "--temperature", "0")
        assert server.choice(prompt="One day", max_tokens=12, temperature=0)["text"] == made["text"]  # of ASCII, greedily


@pytest.mark.parametrize("body, words", [
    (b"{", "JSON"), (b"[" * 100000, "nests"), (b'"a"', "object"), (b"{}", "prompt is missing"), (b'{"prompt": "a", "max_token": 1}', "max_tokens"),
    (b'{"prompt": "a", "max_tokens": 5000}', "max_tokens"), (b'{"prompt": "a", "n": 1000}', "n must"), (b'{"prompt": [257]}', "token id"),
    (b'{"prompt": "\xff"}', "JSON"), (b'{"prompt": "\\ud800"}', "JSON"), (b'{"\xc3": 1, "prompt": "a"}', "JSON"), (b'\xef\xbb\xbf{', "JSON"),
    (b'{"prompt": "a", "max_tokens": 4097}', "4096"), (json.dumps({"prompt": "a" * 4097, "max_tokens": 1}).encode(), "4097 tokens")])
def test_requests_that_cannot_be_right(server, body, words):
    status, answer = server.post("/v1/completions", body)
    error = answer["error"]
    assert status == 400 and words in error["message"] and error["type"] == "invalid_request_error" and error["code"] == 400
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]


def test_places_and_models_that_are_not_there(server):
    assert server.get("/v1/nothing")[0] == 404 and server.post("/v1/chat/completions", {})[0] == 404
    assert server.get("/v1/completions")[0] == 405 and server.post("/health", {})[0] == 405
    assert server.request("DELETE", "/v1/models")[0] == 405 and server.request("OPTIONS", "/health")[0] == 405
    status, answer = server.post("/v1/completions", {"model": "gpt-4", "prompt": "a"})
    assert status == 404 and "'run'" in answer["error"]["message"] and answer["error"]["param"] == "model"


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"


def test_requests_that_are_too_large(server):
    assert b" 413 " in server.raw(HEAD + b"Content-Length: 999999999999\r\n\r\n").split(b"\r\n")[0]
    assert server.post("/v1/completions", b" " * (5 << 20))[0] == 413, "the answer arrives although the body was not read"
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    with server.socket() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(6):
                connection.sendall(chunk)
        assert b" 413 " in read_all(connection).split(b"\r\n")[0]
    assert server.get("/health")[0] == 200


@pytest.mark.parametrize("data, status", [
    (HEAD + b"\r\n", b"411"), (HEAD + b"Content-Length: -1\r\n\r\n", b"400"), (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"400"),
    (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", b"400"), (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", b"501"),
    (HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2\r\n\r\n{}", b"400"), (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
    (b"GET / HTTP/9\r\n\r\n", b"400"), (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"414"),
    (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
    (HEAD + b"Origin: http://evil.example\r\nContent-Length: 2\r\n\r\n{}", b"403"),
    (HEAD + b"Origin: http://localhost:3000\r\nContent-Length: 2\r\n\r\n{}", b"400"), (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400")])
def test_rude_clients_get_an_answer(server, data, status):
    answer = server.raw(data)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    body = answer.split(b"\r\n\r\n", 1)[1]
    assert json.loads(body)["error"]["code"] == int(status)
    assert server.get("/health")[0] == 200


BODY = json.dumps({"prompt": "One day", "max_tokens": 5, "temperature": 0}).encode()


def sized(body):
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*parts, end=b"0\r\n\r\n"):
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def answers_of(data):
    """(status, JSON) of each answer on a connection, in order."""
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        answers.append((int(head.split()[1]), json.loads(data[:length])))
        data = data[length:]
    return answers


def test_bodies_that_are_not_as_long_as_they_say(server):
    for data in (HEAD + b"Content-Length: 500\r\n\r\n" + BODY, chunked(BODY, end=b"ff\r\n{"), chunked(BODY, end=b"")):
        with server.socket() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)  # nothing more will come
            (answer,) = answers_of(read_all(connection))
            assert answer[0] == 400 and "broke off" in answer[1]["error"]["message"], answer
    # What stands behind a body is the next request.
    with server.socket() as connection:
        connection.sendall(sized(BODY) + b"{}\r\n\r\n")
        first, second = answers_of(read_all(connection))
    assert first[0] == 200 and second[0] == 400 and server.get("/health")[0] == 200


def test_chunked_bodies(server):
    expected = server.complete(**json.loads(BODY))["choices"]
    bytewise = chunked(*(BODY[i:i + 1] for i in range(len(BODY))))
    with server.socket() as connection:
        connection.sendall(chunked(BODY) + bytewise.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close"))
        answers = answers_of(read_all(connection))
    assert [(status, answer["choices"]) for status, answer in answers] == [(200, expected)] * 2
    for size in (b"ffffffffffffffff", b"-1", b"", b"0x5", b"5 5"):
        answer = server.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n")
        assert answer.split()[1] in (b"400", b"413"), (size, answer[:200])
    assert server.get("/health")[0] == 200


def test_requests_that_come_at_once_are_answered_in_order(server):
    requests = [{"prompt": prompt, "max_tokens": 3, "temperature": 0} for prompt in ("One", "Two", "The old")]
    expected = [server.complete(**request)["choices"] for request in requests]
    data = b"".join(sized(json.dumps(request).encode()) for request in requests)
    with server.socket() as connection:
        connection.sendall(data + sized(b"{"))  # a mistake ends the connection
        answers = answers_of(read_all(connection))
    assert [answer["choices"] for status, answer in answers if status == 200] == expected and answers[-1][0] == 400


def test_rude_clients_that_get_none(server):
    for data in (b"", b"GET", b"GET /health HTTP/1.1\r\nX: " + b"a" * 200000, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 50000):
        with server.socket() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
    assert server.get("/health")[0] == 200


def test_a_connection_serves_several_requests(server):
    with contextlib.closing(server.connect()) as connection:
        for _ in range(20):
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 1}))
            answer = connection.getresponse()
            assert answer.status == 200 and json.loads(answer.read())["choices"]
        connection.request("POST", "/v1/completions", "{")
        assert connection.getresponse().status == 400
    two = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert server.raw(two).count(b"HTTP/1.1 200") == 2


def test_slow_clients_lose_their_connection_and_hold_up_nobody(server):
    slow = [server.socket() for _ in range(20)]
    begin = time.monotonic()
    for i, connection in enumerate(slow):
        connection.sendall(b"GET /hea" if i % 2 else HEAD + b"Content-Length: 100\r\n\r\n{")
    while time.monotonic() < begin + 1.2:  # a byte now and then buys no time
        for connection in slow:
            connection.sendall(b" ")
        assert server.choice(prompt="a", max_tokens=1)["finish_reason"]
        time.sleep(0.2)
    answers = [read_all(connection) for connection in slow]
    assert time.monotonic() < begin + 8, "the deadline is 2 s for the whole request"
    assert all(b" 408 " in answer.split(b"\r\n")[0] for answer in answers[::2])
    for connection in slow:
        connection.close()


def test_a_client_that_goes_away_frees_its_slot(server):
    before = server.metric("refract_abandoned_total")
    for request in ({"stream": True, "n": 4}, {"n": 4}):
        with contextlib.closing(server.connect()) as connection:
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "One day", "max_tokens": 4000, "temperature": 0, **request}))
            server.wait_for("refract_active_sequences", 4)
            connection.sock.shutdown(socket.SHUT_RDWR)
        server.wait_for("refract_active_sequences", 0, seconds=5)
    assert server.metric("refract_abandoned_total") == before + 2


def test_a_client_that_does_not_read_is_dropped(program, folder):
    with serving(program, folder, "run", "--timeout", 1) as server, server.socket() as connection:
        body = json.dumps({"prompt": "a", "max_tokens": 4000, "temperature": 0, "n": 2, "logprobs": 20, "stream": True}).encode()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        server.wait_for("refract_active_sequences", 2)
        server.wait_for("refract_abandoned_total", 1, seconds=60)
        server.wait_for("refract_active_sequences", 0, seconds=5)


def test_a_full_queue_is_429(program, folder):
    with serving(program, folder, "run", "--slots", 1, "--queue", 2) as server:
        long = json.dumps({"prompt": "a", "max_tokens": 4000, "temperature": 0})
        waiting = []
        for count in (1, 2, 3):
            connection = server.connect()
            connection.request("POST", "/v1/completions", long)
            waiting.append(connection)
            server.wait_for("refract_active_sequences", 1)
            server.wait_for("refract_waiting_sequences", count - 1)
        status, answer = server.post("/v1/completions", {"prompt": "a"})
        assert status == 429 and answer["error"]["type"] == "rate_limit_error"
        assert server.post("/v1/completions", {"prompt": "a", "n": 3})[0] == 400, "more than the queue ever takes"
        assert server.get("/health")[0] == 200
        for connection in waiting:
            connection.close()
        server.wait_for("refract_waiting_sequences", 0)
        assert server.choice(prompt="a", max_tokens=1)["finish_reason"]


def test_a_token_keeps_others_out(program, folder):
    secret = "s3cret"
    with serving(program, folder, "run", "--host", "0.0.0.0", environment={"REFRACT_SERVE_TOKEN": secret}) as server:
        for path in ("/v1/models", "/metrics", "/tokenizer_info"):
            assert server.get(path)[0] == 401
        for wrong in ("Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", secret):
            status, answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}, Authorization=wrong)
            assert status == 401 and answer["error"]["type"] == "authentication_error"
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}, Authorization=f"Bearer {secret}")[0] == 200
        assert server.get("/health")[0] == 200
    assert secret not in (folder / "serve.log").read_text()


@pytest.mark.parametrize("arguments, words", [
    (["--host", "0.0.0.0"], "REFRACT_SERVE_TOKEN"), (["--host", "::"], "REFRACT_SERVE_TOKEN"), (["--port", "70000"], "--port 70000"),
    (["--slots", "0"], "--slots 0"), (["--context", "9999"], "--context 9999"), (["--timeout", "0"], "--timeout 0"),
    (["--host", "no.such.host.invalid", "--token", "x"], "is no address")])
def test_settings_that_cannot_be_right(program, folder, arguments, words):
    done = subprocess.run([str(program), "serve", "run", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_the_first_line_says_what_the_caches_take(program, folder):
    process = subprocess.Popen([str(program), "serve", "run", "--port", "0", "--slots", "2", "--context", "1024"], cwd=folder,
                               stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "is served at" in line)
        assert ", 1.0 MiB for 2 slots of 1024 tokens;" in line
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_caches_that_do_not_fit(program, tmp_path):
    trained(program, tmp_path, "model.max_position_embeddings=32768", "train.steps=1")
    gib = 1 << 30
    limits = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * gib, 6 * gib))}
    done = subprocess.run([str(program), "serve", "run", "--slots", "512", "--port", "0"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=60, **limits)
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "512 slots of 32768 tokens need 8.0 GiB" in said and "--slots" in said and "--context" in said, done.stderr


def test_a_port_that_is_taken(program, folder, server):
    done = subprocess.run([str(program), "serve", "run", "--port", str(server.address[1])], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "taken" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(program, folder, how):
    with serving(program, folder, "run") as server, contextlib.closing(server.connect()) as idle:
        idle.request("GET", "/health")
        assert idle.getresponse().read()
        assert server.stop(how, seconds=10) == 0


def test_a_signal_lets_requests_finish(program, folder):
    with serving(program, folder, "run") as server, contextlib.closing(server.connect()) as connection:
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 400, "temperature": 0}))
        server.wait_for("refract_active_sequences", 1)
        assert server.stop() == 0
        answer = json.loads(connection.getresponse().read())
        assert answer["usage"]["completion_tokens"] == 400 or answer["choices"][0]["finish_reason"] == "stop"


def test_a_signal_cuts_off_what_takes_longer(program, folder):
    request = {"prompt": "a", "max_tokens": 4000, "temperature": 0, "n": 4}
    with serving(program, folder, "run", "--grace", "0.3") as server, contextlib.closing(server.connect()) as one, \
            contextlib.closing(server.connect()) as two:
        one.request("POST", "/v1/completions", json.dumps(request))
        two.request("POST", "/v1/completions", json.dumps(dict(request, stream=True)))
        server.wait_for("refract_active_sequences", 8)
        assert server.stop(seconds=10) == 0
        answer = one.getresponse()
        assert answer.status == 503 and json.loads(answer.read())["error"]["type"] == "server_error"
        events = two.getresponse()
        with contextlib.suppress(Exception):
            text = b""
            while part := events.read1():
                text += part
        last = text.decode().strip().split("\n\n")[-1]
        assert "[DONE]" not in text.decode() and json.loads(last.removeprefix("data: "))["error"]["code"] == 503


def test_a_broken_model_fails_requests_and_not_the_server(program, folder, tmp_path):
    subprocess.run([str(program), "export", "run", "--out", str(tmp_path / "broken")], cwd=folder, check=True, capture_output=True)
    path = tmp_path / "broken" / "model.safetensors"
    data = path.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:head] + b"\xff" * (len(data) - head))  # NaN
    with serving(program, tmp_path, "broken") as server:
        for request in ({"max_tokens": 2}, {"max_tokens": 0, "echo": True, "logprobs": 1}, {"max_tokens": 2, "temperature": 0}):
            status, answer = server.post("/v1/completions", {"prompt": "abc", **request})
            assert status == 500 and "not finite" in answer["error"]["message"]
        assert server.get("/health")[0] == 200 and not math.isnan(server.metric("refract_active_sequences"))
