"""64 clients of one server for a minute, some of them slow, rude or gone before their answer. In make torture only.

Every answer must be the one that its request gets alone, and in the end memory, threads, descriptors and slots are what they were.
"""
import contextlib
import json
import os
import pathlib
import random
import socket
import sys
import threading
import time

import pytest

from workplace import BUILD, TORTURE

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
SECONDS = int(os.environ.get("REFRACT_SOAK_SECONDS", "60"))
CLIENTS = 64
REQUESTS = [{"prompt": "One day", "max_tokens": 4, "temperature": 0, "logprobs": 2}, {"prompt": "The old woman", "max_tokens": 6, "seed": 5, "n": 2},
            {"prompt": [list(b"Once upon a time")], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True},
            {"prompt": "a", "max_tokens": 5, "seed": 1, "stop": ["e", "a"]}]
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"


def state_of(process):
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines())
    return {"memory": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "descriptors": len(os.listdir(f"/proc/{process}/fd"))}


def misbehave(server, chance):
    with contextlib.suppress(OSError), server.socket(timeout=5) as connection:
        kind = chance.randrange(4)
        if kind == 0:  # gone before its answer
            body = json.dumps({"prompt": "a", "max_tokens": 400, "stream": chance.random() < 0.5}).encode()
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(chance.random() * 0.2)
        elif kind == 1:  # garbage
            connection.sendall(bytes(chance.randrange(256) for _ in range(200)) + b"\r\n\r\n")
            connection.recv(100)
        elif kind == 2:  # half of a request
            connection.sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
            time.sleep(chance.random())
        else:
            connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
            connection.recv(100)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset instead of an end


def client(server, number, alone, until, wrong, counts):
    chance = random.Random(number)
    while time.monotonic() < until:
        if chance.random() < 0.1:
            misbehave(server, chance)
            continue
        i = chance.randrange(len(REQUESTS))
        try:
            status, answer = server.post("/v1/completions", REQUESTS[i])
            if status == 429:
                time.sleep(0.1)
            elif status != 200 or answer["choices"] != alone[i]:
                wrong.append((i, status, answer))
        except Exception as error:  # noqa: BLE001: whatever it is, it is a finding
            wrong.append((i, repr(error)))
        counts[number] += 1


@pytest.mark.skipif(not TORTURE, reason="takes a minute; make torture runs it")
def test_64_clients(built, tmp_path):
    from serving import serving, trained
    trained(BUILD / "refract", tmp_path)
    with serving(BUILD / "refract", tmp_path, "run", "--slots", 8, "--timeout", 2) as server:
        alone = [server.complete(**request)["choices"] for request in REQUESTS]
        wrong, counts = [], [0] * CLIENTS

        def ask(seconds):
            until = time.monotonic() + seconds
            threads = [threading.Thread(target=client, args=(server, i, alone, until, wrong, counts)) for i in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            server.wait_for("refract_active_sequences", 0)
            server.wait_for("refract_waiting_sequences", 0)
            time.sleep(4)  # for connections that wait for their time to end

        ask(min(10, SECONDS / 4))  # what is allocated once
        before = state_of(server.process.pid)
        ask(SECONDS)
        after = state_of(server.process.pid)
        assert not wrong, f"{len(wrong)} wrong answers, the first: {wrong[0]}"
        print(f"{sum(counts)} requests, {before} -> {after}")
        assert min(counts) > 0
        assert after["threads"] <= before["threads"] and after["descriptors"] <= before["descriptors"]
        assert after["memory"] < before["memory"] + 32 * 1024, "kB; what malloc keeps for another thread is less than that"
        assert server.stop() == 0
