"""Load tests: what is asked, at which pace, and what is counted."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from itertools import islice

import pytest

from ptune.cli import main
from ptune.errors import ConfigError, DataError
from ptune.serving.connection import Connection, Server
from ptune.serving.load import LoadConfig, choose_adapters, made_up_texts, questions, read_texts
from ptune.serving.loadtest import Answer, Latency, Tally, drive, served_adapters
from tests.serving.stub_server import NAMES, StubServer, lists_and_answers, reply

TEXTS = ["one", "two", "three"]


def taken(config: LoadConfig, adapters=NAMES, texts=TEXTS, count=200):
    return list(islice(questions(config, adapters, texts), count))


def run(stub: StubServer, **settings: object) -> tuple[Tally, list[Answer]]:
    config, tally, answers = LoadConfig(**{"warmup": 0, **settings}), Tally(), []
    asked = questions(config, NAMES, TEXTS)
    asyncio.run(drive(Server.at(stub.url), asked, config, tally, answers.append))
    return tally, answers


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_a_name_is_escaped_in_the_path() -> None:
    paths = {question.path for question in taken(LoadConfig())}
    assert paths == {"/adapters/a/predict", "/adapters/b/predict", "/adapters/c%2Fd%20e/predict"}


def test_the_default_adapter_is_asked_at_the_root() -> None:
    assert {question.path for question in taken(LoadConfig(), [""])} == {"/predict"}


@pytest.mark.parametrize(
    ("texts", "count", "inputs"),
    [
        (["one"], 1, "one"),
        (["one"], 2, [["one"], ["one"]]),
        ([("one", "two")], 1, ["one", "two"]),
        ([("one", "two")], 2, [["one", "two"], ["one", "two"]]),
    ],
)
def test_texts_and_pairs_go_to_predict_as_its_protocol_has_them(texts, count, inputs) -> None:
    (question,) = taken(LoadConfig(texts_per_request=count), texts=texts, count=1)
    assert json.loads(question.body) == {"inputs": inputs}
    assert question.rows == count


def test_predict_many_names_different_adapters() -> None:
    config = LoadConfig(route="predict-many", adapters_per_request=2, distribution="zipf", zipf_exponent=4)
    for question in taken(config, texts=[("one", "two")]):
        content = json.loads(question.body)
        assert content["inputs"] == {"text": "one", "text_pair": "two"}
        assert len(set(content["adapters"])) == 2
        assert tuple(content["adapters"]) == question.adapters


def test_zipf_draws_all_adapters_where_a_request_wants_all() -> None:
    config = LoadConfig(route="predict-many", adapters_per_request=40, distribution="zipf", zipf_exponent=9)
    names = [f"n{number}" for number in range(40)]
    (question,) = taken(config, names, count=1)
    assert set(question.adapters) == set(names)


def test_classify_names_its_adapter_in_the_body() -> None:
    question = taken(LoadConfig(route="classify", texts_per_request=2), ["a"], ["one"], count=1)[0]
    assert (question.path, json.loads(question.body)) == ("/classify", {"model": "a", "input": ["one", "one"]})


def test_uniform_asks_all_alike_and_zipf_in_proportion_to_one_over_the_rank() -> None:
    names = [f"n{number}" for number in range(10)]
    alike = Counter(question.adapters[0] for question in taken(LoadConfig(), names, count=2000))
    ranked = Counter(question.adapters[0] for question in taken(LoadConfig(distribution="zipf"), names, count=2000))
    assert max(alike.values()) < 1.4 * min(alike.values())
    counts = [count for _, count in ranked.most_common()]
    assert math.isclose(counts[0] / counts[1], 2, rel_tol=0.25)
    assert math.isclose(counts[0] / counts[9], 10, rel_tol=0.4)


def test_the_same_seed_asks_the_same() -> None:
    first, again, other = (taken(LoadConfig(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_texts_are_made_up_or_read_from_a_file_without_its_empty_rows(tmp_path) -> None:
    assert {len(text.split()) for text in made_up_texts(7)} == {7}
    (tmp_path / "t.csv").write_text("text,label\ngood,x\n,x\nbad,x\n")
    (tmp_path / "p.jsonl").write_text('{"one": "a", "two": "b"}\n')
    assert read_texts(str(tmp_path / "t.csv")) == ["good", "bad"]
    assert read_texts(str(tmp_path / "p.jsonl"), "one", "two") == [("a", "b")]
    (tmp_path / "t.csv").write_text("text\n\n")
    with pytest.raises(DataError, match="has no texts; give a file with one text in each row"):
        read_texts(str(tmp_path / "t.csv"))


def test_adapters_are_all_those_named_or_the_default() -> None:
    assert choose_adapters(["all"], NAMES) == NAMES
    assert choose_adapters(["default"], NAMES) == [""]
    assert choose_adapters(["b", "a", "b"], NAMES) == ["b", "a"]
    assert choose_adapters(["all"], ["all", "b"]) == ["all"]  # a name comes first
    with pytest.raises(ConfigError, match="no adapter 'review'; did you mean 'reviews'"):
        choose_adapters(["review"], ["reviews"])
    with pytest.raises(ConfigError, match="no adapters yet"):
        choose_adapters(["all"], [])


# --- at which pace ----------------------------------------------------------------------------------------------------


def test_a_slow_server_is_asked_as_often_as_a_fast_one_if_a_rate_is_given() -> None:
    async def slow(asked):
        await asyncio.sleep(0.3)
        return await lists_and_answers(asked)

    with StubServer(slow) as stub:
        tally, answers = run(stub, rate=200, duration=0.5)
    assert 60 < len(answers) < 140
    report = tally.report(200)
    assert report.requests == len(answers)
    assert report.latency_ms.p50 >= 300
    assert report.statuses == {"200": len(answers)}


def test_latency_counts_from_when_a_request_was_due_and_a_full_pool_is_reported() -> None:
    async def slow(asked):
        await asyncio.sleep(0.2)
        return await lists_and_answers(asked)

    with StubServer(slow) as stub:
        tally, answers = run(stub, rate=100, duration=0.5, connections=2)
        assert stub.connections == 2
    report = tally.report(100)
    assert report.not_sent > 20
    assert report.requests == len(answers) + report.not_sent
    assert all(answer.due <= answer.sent <= answer.done for answer in answers)


def test_connections_stay_open_and_each_has_one_request_at_a_time() -> None:
    under_way, most = 0, 0

    async def count(asked):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.005)
        under_way -= 1
        return await lists_and_answers(asked)

    with StubServer(count) as stub:
        _, answers = run(stub, connections=3, duration=0.3)
        assert (stub.connections, most) == (3, 3)
    assert len(answers) > 20


def test_warm_up_is_not_measured() -> None:
    with StubServer() as stub:
        tally, answers = run(stub, rate=200, duration=0.2, warmup=0.3)
    counted = tally.report(200).requests
    assert 10 < counted < 0.7 * len(answers)


def test_the_time_after_the_last_request_is_measured_too() -> None:
    with StubServer() as stub:
        tally, answers = run(stub, rate=2, duration=1.5, seed=3)
    report = tally.report(2)
    assert report.seconds == 1.5
    assert report.throughput == pytest.approx(len(answers) / 1.5, abs=0.01)


# --- what is counted --------------------------------------------------------------------------------------------------


def test_what_is_no_answer_is_counted_by_its_reason() -> None:
    numbers = iter(range(100_000))

    async def mixed(asked):
        kind = next(numbers) % 5
        if kind == 0:
            return reply(429, {"error": "busy"}, "retry-after: 1\r\n")
        if kind == 1:
            return b""
        if kind == 2:
            return b"220 smtp ready\r\n\r\n"
        if kind == 3:
            await asyncio.sleep(0.2)
        return await lists_and_answers(asked)

    with StubServer(mixed) as stub:
        tally, answers = run(stub, rate=100, duration=0.4, timeout=0.1)
    report = tally.report(100)
    assert set(report.statuses) == {"200", "429", "connection failed", "not HTTP", "timeout"}
    assert sum(report.statuses.values()) == report.requests == len(answers)
    assert report.refused_ms is not None


def test_percentiles_are_values_that_were_measured() -> None:
    latency = Latency.of([number / 1000 for number in range(1, 201)])
    assert (latency.p50, latency.p90, latency.p95, latency.p99, latency.max) == (100, 180, 190, 198, 200)
    assert latency.mean == 100.5
    assert Latency.of([]) is None


def test_throughput_counts_rows_of_all_adapters() -> None:
    config, tally = LoadConfig(warmup=0, duration=0.3, route="predict-many", adapters_per_request=3), Tally()
    with StubServer() as stub:
        asyncio.run(drive(Server.at(stub.url), questions(config, NAMES, TEXTS), config, tally))
    report = tally.report(None)
    assert report.rows_per_second == pytest.approx(3 * report.throughput, rel=0.01)
    assert report.adapters == 3


# --- the connection ---------------------------------------------------------------------------------------------------


def test_an_idle_connection_that_was_closed_is_opened_again() -> None:
    numbers = iter(range(3))

    async def closes(asked):
        return await lists_and_answers(asked) if next(numbers) != 1 else b""

    async def twice(url):
        connection = Connection(Server.at(url))
        replies = [await connection.post("/", b"1"), await connection.post("/", b"2")]
        connection.close()
        return [one.status for one in replies]

    with StubServer(closes) as stub:
        assert asyncio.run(twice(stub.url)) == [200, 200]
        assert stub.connections == 2


def test_answers_in_chunks_are_joined_and_the_next_answer_is_found() -> None:
    async def chunks(asked):
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1, \r\n2;x=y\r\n2]\r\n0\r\na: b\r\n\r\n"

    async def twice(url):
        connection = Connection(Server.at(url + "/under/"))
        contents = [(await connection.get("/x")).content for _ in range(2)]
        connection.close()
        return contents

    with StubServer(chunks) as stub:
        assert asyncio.run(twice(stub.url)) == [b"[1, 2]"] * 2
        assert stub.asked[0].path == "/under/x"
        assert stub.connections == 1


@pytest.mark.parametrize(
    "url",
    ["localhost:8080", "ftp://x", "http://", "http://x:99999", "http://x:y", "http://x/?q=1", "http://x y", "http://ü"],
)
def test_what_is_no_address_is_refused(url) -> None:
    with pytest.raises(ConfigError, match="is not the address of a server; it looks like http://127"):
        Server.at(url)


def test_a_key_is_sent_and_cannot_add_headers() -> None:
    with StubServer() as stub:
        asyncio.run(served_adapters(Server.at(stub.url, "secret")))
        assert stub.asked[0].headers["authorization"] == "Bearer secret"
    with pytest.raises(ConfigError, match="characters that cannot be sent"):
        Server.at(stub.url, "a\r\nx: y")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_what_it_measured(capsys, monkeypatch) -> None:
    monkeypatch.setenv("PTUNE_KEY", "k")
    with StubServer() as stub:
        main(["loadtest", stub.url, "--duration", "0.2", "--warmup", "0", "--adapters", "a,b", "--json"])
        assert {asked.headers["authorization"] for asked in stub.asked} == {"Bearer k"}
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["statuses"] == {"200": report["requests"]}
    assert report["latency_ms"].keys() == {"mean", "p50", "p90", "p95", "p99", "max"}
    assert report["adapters"] == 2
    assert "8 connections for 0.2 s, asking 2 adapters at" in err
    assert "requests per second" in err


def test_the_command_says_what_stands_in_the_way_of_a_measurement(capsys) -> None:
    async def refuse(asked):
        return await lists_and_answers(asked) if asked.method == "GET" else reply(401, {})

    with StubServer(refuse) as stub, pytest.raises(SystemExit) as ended:
        main(["loadtest", stub.url, "--rate", "300", "--connections", "1", "--duration", "0.2", "--warmup", "0"])
    assert ended.value.code == 1  # nothing was answered
    out = capsys.readouterr().out
    assert "warning: requests were refused for lack of an API key; put one into the environment as PTUNE_KEY" in out


async def takes_two_kinds(asked):
    if asked.method == "GET":
        return reply(200, {"adapters": [{"name": "films", "pairs": False}, {"name": "same", "pairs": True}]})
    return reply(200 if asked.path == "/adapters/films/predict" else 422, {"error": "a pair is expected"})


def test_adapters_that_take_something_else_than_the_texts_are_left_out(capsys, tmp_path) -> None:
    options = ["--duration", "0.2", "--warmup", "0"]
    with StubServer(takes_two_kinds) as stub:
        main(["loadtest", stub.url, *options])
        assert {asked.path for asked in stub.asked[1:]} == {"/adapters/films/predict"}
        assert "left out: 1 adapters that take pairs, because the texts are single texts" in capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main(["loadtest", stub.url, *options, "--adapters", "same"])
    assert ended.value.code == 1
    assert 'answer 422   {"error": "a pair is expected"}' in capsys.readouterr().out


async def not_ours(asked):
    return reply(200, {"models": []})


async def locked(asked):
    return reply(401, {"error": "no key"})


async def other_protocol(asked):
    return b"220 smtp ready\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        (lists_and_answers, ["--adapters", "x"], "the server has no adapter 'x'; it has a, b, c/d e"),
        (
            lists_and_answers,
            ["--route", "predict-many"],
            "--adapters-per-request 10 is more than the 3 adapters that are asked; use a smaller one",
        ),
        (
            lists_and_answers,
            ["--route", "classify", "--adapters", "default"],
            "--route classify names its adapters; use --adapters all or their names",
        ),
        (lists_and_answers, ["--rate", "0"], "--rate: expected more than 0 (given: '0')"),
        (lists_and_answers, ["--text-column", "x"], "name columns of a file; give it with --texts"),
        (lists_and_answers, ["--texts", "none.csv"], "'none.csv': there is no such file"),
        (not_ours, [], "is not `ptune serve`: GET /adapters gives status 200 and"),
        (locked, [], "asks for an API key; put it into the environment as PTUNE_KEY"),
        (other_protocol, [], "does not speak HTTP"),
    ],
)
def test_wrong_settings_and_servers_end_in_one_sentence(answer, options, message, capsys) -> None:
    with StubServer(answer) as stub, pytest.raises(SystemExit) as caught:
        main(["loadtest", stub.url, *options])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err.startswith("ptune: error: ")
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_server_that_is_not_there_is_named(capsys) -> None:
    with StubServer() as stub:
        pass
    with pytest.raises(SystemExit):
        main(["loadtest", stub.url])
    err = capsys.readouterr().err
    assert f"no server answers at {stub.url}: connection refused; start one with: ptune serve DIR" in err
