"""How workers find each other before TensorFlow starts."""

import dataclasses
import functools
import json
import socket
import threading
import time

import pytest
import replicas
from ports import free_ports

from keras_popup import training
from keras_popup.distribution import rendezvous

pytestmark = pytest.mark.integration

RUN = dataclasses.replace(replicas.RUN, epochs=8)


def in_threads(*functions):
    """What each function did, called at the same time: what it returned or raised."""
    outcomes = [None] * len(functions)

    def run(place, function):
        try:
            outcomes[place] = function()
        except Exception as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def addresses_of(count):
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


def meeting(addresses, arguments):
    receive = functools.partial(rendezvous.receive, addresses, arguments[0], 20.0)
    calls = [
        functools.partial(rendezvous.call, addresses, worker, arguments[worker], 20.0)
        for worker in range(1, len(arguments))
    ]
    return in_threads(receive, *calls)


def test_call_meets_receive():
    assert meeting(addresses_of(3), [{"k": 0.5, "names": ("a", "b")}] * 3) == [None] * 3
    assert meeting(addresses_of(1), [{"k": 0.5}]) == [None]


def test_receive_refuses_other_arguments_everywhere():
    for outcome in meeting(addresses_of(3), [{"k": 0.5}, {"k": 0.5}, {"k": 0.3, "more": 1}]):
        assert isinstance(outcome, ValueError)
        assert "Differing: k=0.3 in worker 2, 0.5 in worker 0; more=1 in worker 2, None in worker 0." in str(outcome)


def test_receive_and_call_do_not_wait_for_ever():
    addresses = addresses_of(3)
    first, second = in_threads(
        lambda: rendezvous.receive(addresses, {"k": 0.5}, 1.0),
        lambda: rendezvous.call(addresses, 1, {"k": 0.3}, 20.0),
    )
    assert isinstance(first, TimeoutError)
    assert "did not call: 127.0.0.1:" in str(first)
    assert "Differing: k=0.3 in worker 1" in str(first)
    assert isinstance(second, ValueError)
    assert str(second) == str(first)
    alone = in_threads(lambda: rendezvous.call(addresses_of(2), 1, {}, 0.7))[0]
    assert isinstance(alone, TimeoutError)
    assert "did not answer" in str(alone)


def test_call_may_come_again_with_other_arguments():
    addresses = addresses_of(3)
    receiver = functools.partial(rendezvous.receive, addresses, {"k": 0.5}, 20.0)

    def others():
        assert isinstance(in_threads(lambda: rendezvous.call(addresses, 1, {"k": 0.3}, 1.0))[0], TimeoutError)
        calls = [functools.partial(rendezvous.call, addresses, worker, {"k": 0.5}, 20.0) for worker in (1, 2)]
        assert in_threads(*calls) == [None, None]

    assert in_threads(receiver, others) == [None, None]


@pytest.mark.parametrize("answer", [{"refusal": "no", "finished": None}, {"refusal": "", "finished": {"test": 1}}])
def test_dismiss_where_worker_0_has_nothing_to_do(answer):
    addresses = addresses_of(2)
    outcomes = in_threads(
        lambda: rendezvous.dismiss(addresses, answer), lambda: rendezvous.call(addresses, 1, {}, 20.0)
    )
    assert outcomes[0] is None
    assert outcomes[1] == answer["finished"] or str(outcomes[1]) == answer["refusal"]


def test_receive_and_call_name_a_port_that_is_taken(monkeypatch):
    monkeypatch.setattr(rendezvous, "_BETWEEN_TRIES", 0.05)
    addresses = addresses_of(2)
    for worker, part in enumerate((rendezvous.receive, rendezvous.call)):
        arguments = (addresses, {}, 0.3) if worker == 0 else (addresses, worker, {}, 0.3)
        port = int(addresses[worker].rpartition(":")[2])
        with socket.create_server(("", port)), pytest.raises(OSError, match=f"Cannot listen on port {port}"):
            part(*arguments)


def test_receive_is_not_disturbed_by_strangers():
    addresses = addresses_of(2)
    port = int(addresses[0].rpartition(":")[2])

    def strangers_and_worker():
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"worker": 7, "arguments": {}}\n', b"\xff\n", b""):
            while True:
                try:
                    stranger = socket.create_connection(("127.0.0.1", port), timeout=5)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            with stranger:
                stranger.sendall(said)
        return rendezvous.call(addresses, 1, {}, 20.0)

    assert in_threads(lambda: rendezvous.receive(addresses, {}, 20.0), strangers_and_worker) == [None, None]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["http://a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"], "worker": ["c:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_cluster_from_environment_is_checked_before_anything(tmp_path, monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=r'TF_CONFIG.*Expected on each machine.*"cluster": {"worker"'):
        training.train(dataclasses.replace(RUN, strategy="multiworker"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cluster_from_environment_has_the_chief_as_worker_0(monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "[::1]:2"]}
    for kind, index, place in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        assert rendezvous.cluster_from_environment() == (["a:1", "b:1", "[::1]:2"], place)
