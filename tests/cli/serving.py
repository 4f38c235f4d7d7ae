"""A server for tests: starts `refract serve` on a free port, speaks HTTP to it, and stops it."""
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time


CONTEXT = 4096  # of the model: long enough for requests that take seconds
RECIPE = f"""
[run]
dir = "run"
seed = 3
[data]
path = "stories:40KB"
tokenizer = "bytes"
context = 16
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
max_position_embeddings = {CONTEXT}
[train]
steps = 30
batch = 4
device = "cpu"
[eval]
every = 30
samples = 0
[checkpoint]
every = 30
"""


def trained(program, folder, *overrides):
    """Trains a tiny model of bytes in `folder`/run."""
    (folder / "recipe.toml").write_text(RECIPE)
    subprocess.run([str(program), "train", "recipe.toml", *overrides], cwd=folder, check=True, capture_output=True)
    return folder


class Server:
    def __init__(self, program, folder, model, *arguments, environment=None):
        self.log = open(folder / "serve.log", "ab")  # noqa: SIM115: it lives as long as the server
        self.process = subprocess.Popen(
            [str(program), "serve", str(model), "--port", "0", "--json", *map(str, arguments)], cwd=folder,
            env=dict(os.environ, OMP_NUM_THREADS="1", **(environment or {})), stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        assert line, f"the server did not start: {(folder / 'serve.log').read_text()}"
        self.started = json.loads(line)
        self.url = self.started["url"]
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.address = host.strip("[]"), int(port)

    def connect(self, timeout=60):
        return http.client.HTTPConnection(*self.address, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """(status, the answer's JSON or text)."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body), headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if answer.headers["Content-Type"] == "application/json" else text

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, headers)

    def complete(self, **request):
        status, answer = self.post("/v1/completions", request)
        assert status == 200, answer
        return answer

    def choice(self, **request):
        (choice,) = self.complete(**request)["choices"]
        return choice

    def stream(self, **request):
        """The events of a streamed answer, as they are, and the last line."""
        status, text = self.post("/v1/completions", dict(request, stream=True))
        assert status == 200, text
        events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
        return [json.loads(event) for event in events if event != "[DONE]"], events[-1]

    def socket(self, timeout=30):
        return socket.create_connection(self.address, timeout=timeout)

    def raw(self, data, timeout=30):
        """What the server answers to these bytes, to its end."""
        with self.socket(timeout) as connection:
            connection.sendall(data)
            return read_all(connection)

    def metric(self, name):
        status, text = self.get("/metrics")
        assert status == 200
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name + " ")))

    def wait_for(self, name, value, seconds=20):
        until = time.monotonic() + seconds
        while self.metric(name) != value:
            assert time.monotonic() < until, f"{name} is {self.metric(name)} and not {value}"
            time.sleep(0.05)

    def stop(self, how=signal.SIGTERM, seconds=30):
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.log.close()


def read_all(connection):
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


@contextlib.contextmanager
def serving(program, folder, model, *arguments, **options):
    server = Server(program, folder, model, *arguments, **options)
    try:
        yield server
    finally:
        server.stop()
