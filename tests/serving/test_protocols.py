"""Each protocol to the letter: what its clients send, what they get, and what they get when something is wrong."""

from __future__ import annotations

import json
import re
import struct
import urllib.error
import urllib.request

import pytest

from tests.serving.conftest import TEXTS


def close(scored) -> list[dict[str, object]]:
    """Labels with scores, up to rounding, which depends on the batch."""
    return [{**item, "score": pytest.approx(item["score"], abs=1e-5)} for item in scored]


def test_hugging_faces_client_classifies(server, monkeypatch) -> None:
    from huggingface_hub import InferenceClient, constants
    from huggingface_hub.errors import HfHubHTTPError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client = InferenceClient(base_url=f"{server.url}/adapters/topics", token="hf_none")
    answer = client.text_classification("a good film", top_k=2, function_to_apply="softmax")
    expected = server.post("/adapters/topics/predict", {"inputs": "a good film"})
    assert [(item.label, item.score) for item in answer] == [
        (item["label"], pytest.approx(item["score"], abs=1e-5)) for item in expected[:2]
    ]
    with pytest.raises(HfHubHTTPError, match="404"):
        InferenceClient(base_url=f"{server.url}/adapters/nope", token="hf_none").text_classification("a good film")


def test_hugging_face(server) -> None:
    one = server.post("/", {"inputs": "bad"})
    assert [len(row) for row in one] == [2]
    several = server.post("/adapters/reviews", {"inputs": TEXTS[:3], "parameters": {"top_k": 1}})
    assert [len(row) for row in several] == [1, 1, 1]
    raw = server.post("/adapters/reviews", {"inputs": "bad", "parameters": {"function_to_apply": "none"}})
    assert sum(item["score"] for item in raw[0]) != pytest.approx(1)
    each = server.post("/adapters/reviews", {"inputs": "bad", "parameters": {"function_to_apply": "sigmoid"}})
    assert sum(item["score"] for item in each[0]) != pytest.approx(1)
    pair = {"text": "a good film", "text_pair": "bad"}
    assert server.post("/adapters/pairs", {"inputs": pair}) == server.post("/adapters/pairs", {"inputs": [pair]})
    for wrong in ({"inputs": 3}, {}, {"inputs": "bad", "parameters": {"top_k": 0}}, {"inputs": pair}):
        status, content = server("POST", "/adapters/reviews", wrong)
        assert status == (400 if wrong != {"inputs": pair} else 200), content
        assert status == 200 or isinstance(content["error"], str)


def test_text_embeddings_inference(server) -> None:
    flat = server.post("/predict", {"inputs": "bad", "truncate": None, "raw_scores": False})
    assert server.post("/predict", {"inputs": ["bad"]}) == close(flat)
    assert {"x-compute-time", "x-queue-time", "x-inference-time", "x-request-id"} <= server.last.keys()
    nested = server.post("/predict", {"inputs": [["bad"], ["a cast"]]})
    assert nested[0] == close(flat)
    assert len(nested) == 2
    raw = server.post("/predict", {"inputs": "bad", "raw_scores": True})
    assert [item["label"] for item in raw] == [item["label"] for item in flat]
    assert server.post("/vertex", {"instances": [{"inputs": "bad"}]})["predictions"][0] == close(flat)
    batch = {"inputs": [["good"], ["bad"]], "truncate": True}
    instances = [{"inputs": "bad"}, batch, {"inputs": "bad", "raw_scores": True}]
    first, second, third = server.post("/vertex", {"instances": instances})["predictions"]
    assert (first, second[1], third) == (close(flat), close(flat), close(raw))
    assert server.post("/vertex", {"instances": []}) == {"predictions": []}
    assert server("POST", "/vertex", {"instances": []}, X_Adapter="nope")[0] == 404
    assert server.post("/predict", {"inputs": "bad"}, X_Adapter="spam")[0]["label"] in ("ham", "spam")
    info = server.get("/adapters/topics/info")
    assert info["model_id"] == "topics"
    assert info["model_type"]["classifier"]["id2label"] == {"0": "news", "1": "sport", "2": "film"}
    assert info["max_input_length"] == 20
    assert server("GET", "/health") == (200, "")
    metrics = server.get("/metrics")
    for name in (
        "te_request_count{",
        "te_request_success{",
        "te_request_failure{",
        "te_request_duration_sum",
        "te_request_queue_duration_sum",
        "te_request_inference_duration_sum",
        "te_queue_size",
        "te_batch_next_size_bucket",
        "te_batch_next_tokens_bucket",
    ):
        assert name in metrics


@pytest.mark.parametrize(
    ("inputs", "status", "kind"),
    [
        ([], 400, "Empty"),
        ("", 422, "Validation"),
        (None, 422, "Validation"),
        ([1], 422, "Validation"),
        ([["a", "b", "c"]], 422, "Validation"),
        ([["a"], ["a", "b"]], 422, "Validation"),
        ("half a character: \ud800", 422, "Validation"),
    ],
)
def test_errors_of_text_embeddings_inference(inputs, status, kind, server) -> None:
    code, content = server("POST", "/predict", {"inputs": inputs})
    assert (code, content["error_type"]) == (status, kind)
    assert content.keys() == {"error", "error_type"}


def test_vllm(server) -> None:
    for path in ("/classify", "/v1/classify"):
        content = server.post(path, {"model": "topics", "input": TEXTS[:2]})
        assert content.keys() == {"id", "object", "created", "model", "data", "usage"}
        assert content["id"].startswith("classify-")
        assert (content["object"], content["model"]) == ("list", "topics")
        for index, row in enumerate(content["data"]):
            assert row.keys() == {"index", "label", "probs", "num_classes"}
            assert (row["index"], row["num_classes"]) == (index, 3)
            assert sum(row["probs"]) == pytest.approx(1)
            assert row["label"] == ["news", "sport", "film"][row["probs"].index(max(row["probs"]))]
        tokens = content["usage"]["prompt_tokens"]
        assert content["usage"] == {
            "prompt_tokens": 5 + 3,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
        }
    raw = server.post("/classify", {"model": "topics", "input": "bad", "use_activation": False})
    assert sum(raw["data"][0]["probs"]) != pytest.approx(1)
    short = server.post("/classify", {"model": "topics", "input": TEXTS[4], "truncate_prompt_tokens": 5})
    assert short["usage"]["prompt_tokens"] == 5
    models = server.get("/v1/models")
    assert models["object"] == "list"
    assert {"spam", "topics"} <= {model["id"] for model in models["data"]}
    assert server.get("/v1/models/spam")["object"] == "model"
    status, content = server("POST", "/v1/classify", {"model": "nope", "input": "bad"})
    assert status == 404
    assert content["error"] == {
        "message": "there is no adapter 'nope'; GET /adapters lists them",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }
    for wrong in ({"model": "spam"}, {"model": "spam", "input": []}, {"model": 3, "input": "bad"}):
        status, content = server("POST", "/v1/classify", wrong)
        assert (status, content["error"]["type"]) == (400, "BadRequestError")


def test_open_inference(server) -> None:
    about = server.get("/v2")
    assert (about["name"], about["extensions"]) == ("ptune", ["binary_tensor_data"])
    assert server.get("/v2/health/live") == {"live": True}
    assert server.get("/v2/health/ready") == {"ready": True}
    assert server.get("/v2/models/topics/ready") == {"name": "topics", "ready": True}
    model = server.get("/v2/models/topics/versions/1")
    assert [tensor["name"] for tensor in model["inputs"]] == ["text"]
    assert [(tensor["name"], tensor["datatype"]) for tensor in model["outputs"]] == [
        ("label", "BYTES"),
        ("scores", "FP32"),
    ]
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": TEXTS[:2]}
    content = server.post("/v2/models/topics/infer", {"id": "7", "inputs": [text]})
    assert content.keys() == {"model_name", "model_version", "id", "outputs"}
    label, scores = content["outputs"]
    assert (label["shape"], scores["shape"], len(scores["data"])) == ([2], [2, 3], 6)
    expected = server.post("/classify", {"model": "topics", "input": TEXTS[:2]})["data"]
    assert label["data"] == [row["label"] for row in expected]
    assert scores["data"] == pytest.approx([score for row in expected for score in row["probs"]], abs=1e-5)
    only = server.post("/v2/models/topics/infer", {"inputs": [text], "outputs": [{"name": "scores"}]})
    assert [tensor["name"] for tensor in only["outputs"]] == ["scores"]
    pair = {"name": "text_pair", "datatype": "BYTES", "shape": [2, 1], "data": [["bad"], ["a cast"]]}
    assert server.post("/v2/models/pairs/infer", {"inputs": [text, pair]})["outputs"][0]["shape"] == [2]
    none = [{**tensor, "shape": [0], "data": []} for tensor in (text, pair)]
    assert server.post("/v2/models/pairs/infer", {"inputs": none})["outputs"][1]["data"] == []
    stars = server.post("/v2/models/stars/infer", {"inputs": [text]})["outputs"]
    assert [(tensor["name"], tensor["shape"]) for tensor in stars] == [("scores", [2, 1])]
    for wrong in (
        {"inputs": []},
        {"inputs": [{**text, "shape": [3]}]},
        {"inputs": [{**text, "datatype": "FP32"}]},
        {"inputs": [text, text]},
        {"inputs": [text], "outputs": [{"name": "nope"}]},
        {"inputs": [{**text, "data": [1, 2]}]},
    ):
        status, content = server("POST", "/v2/models/topics/infer", wrong)
        assert (status, content.keys()) == (400, {"error"}), wrong
    assert server("GET", "/v2/models/nope")[0] == 404
    assert server("GET", "/v2/models/topics/versions/2")[0] == 404


def packed(texts: list[bytes]) -> bytes:
    """Return a BYTES tensor as the extension for binary tensors has it."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def infer(server, content: dict, binary: bytes, length: str | None = None) -> tuple[int, dict, bytes]:
    """Send JSON and the bytes behind it, and return the status, the JSON and the bytes of the answer."""
    head = json.dumps(content).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)) if length is None else length}
    url = f"{server.url}/v2/models/topics/infer"
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, head + binary, headers))
    except urllib.error.HTTPError as err:
        reply = err
    with reply:
        body = reply.read()
    size = int(reply.headers.get("Inference-Header-Content-Length", len(body)))
    return reply.status, json.loads(body[:size]), body[size:]


def test_open_inference_with_binary_tensors(server) -> None:
    data = packed([text.encode() for text in TEXTS[:2]])
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(data)}}
    plain = {"name": "text", "datatype": "BYTES", "shape": [2], "data": TEXTS[:2]}
    label, scores = server.post("/v2/models/topics/infer", {"inputs": [plain]})["outputs"]

    assert infer(server, {"inputs": [text]}, data)[1]["outputs"][0] == label
    asked = {"inputs": [text], "parameters": {"binary_data_output": True}, "id": "7"}
    _, content, binary = infer(server, asked, data)
    first, second = content["outputs"]
    labels = packed([name.encode() for name in label["data"]])
    assert first == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"binary_data_size": len(labels)},
    }
    assert second["parameters"] == {**scores["parameters"], "binary_data_size": 4 * len(scores["data"])}
    assert binary[: len(labels)] == labels
    assert struct.unpack("<6f", binary[len(labels) :]) == pytest.approx(scores["data"], abs=1e-5)
    assert content["id"] == "7"
    outputs = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}]
    _, content, binary = infer(server, {**asked, "outputs": outputs}, data)
    assert content["outputs"][0] == label
    assert len(binary) == 4 * len(scores["data"])
    only = [{"name": "label", "parameters": {"binary_data": True}}]
    assert infer(server, {"inputs": [plain], "outputs": only}, b"")[2] == labels


@pytest.mark.parametrize(
    ("change", "binary", "length", "said"),
    [
        ({}, packed([b"good"]), None, "shape of input"),
        ({}, packed([b"good", b"bad"]) + b"x", None, "1 bytes behind the JSON"),
        ({"binary_data_size": 12}, packed([b"good", b"bad"]), None, "ends within text 2"),
        ({}, packed([b"good"]) + struct.pack("<I", 2**32 - 1) + b"bad", None, "ends within text 2"),
        ({"binary_data_size": 99}, packed([b"good", b"bad"]), None, "15 bytes are there"),
        ({"binary_data_size": -1}, packed([b"good", b"bad"]), None, "binary_data_size"),
        ({"binary_data_size": True}, packed([b"good", b"bad"]), None, "binary_data_size"),
        ({}, packed([b"good", b"b\xe4d"]), None, "not UTF-8: number 2"),
        ({}, packed([b"good", b"bad"]), "100000", "expected the length of the JSON"),
        ({}, packed([b"good", b"bad"]), "-3", "expected the length of the JSON"),
        ({}, packed([b"good", b"bad"]), "", "expected the length of the JSON"),
        ({}, packed([b"good", b"bad"]), "10", "not JSON"),
    ],
)
def test_wrong_binary_tensors_are_refused_in_words(change, binary, length, said, server) -> None:
    text = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"binary_data_size": len(binary), **change},
    }
    if binary.endswith(b"x"):
        text["parameters"]["binary_data_size"] -= 1
    status, content, _ = infer(server, {"inputs": [text]}, binary, length)
    assert status == 400
    assert re.search(said, content["error"])


def test_binary_tensors_have_the_limits_of_requests(server) -> None:
    data = packed([b""] * 100_000)
    text = {"name": "text", "datatype": "BYTES", "shape": [100_000], "parameters": {"binary_data_size": len(data)}}
    status, content, _ = infer(server, {"inputs": [text]}, data)
    assert (status, "rows" in content["error"]) == (413, True)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/adapters/nope/predict", {"inputs": "bad"}),
        ("POST", "/adapters/nope", {"inputs": "bad"}),
        ("POST", "/predict-many", {"inputs": "bad", "adapters": ["spam", "nope"]}),
        (
            "POST",
            "/v2/models/nope/infer",
            {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "data": ["x"]}]},
        ),
        ("GET", "/adapters/nope", None),
        ("GET", "/adapters/nope/info", None),
        ("GET", "/v1/models/nope", None),
        ("GET", "/adapters/%2e%2e%2freviews", None),
        ("POST", "/adapters/..%5creviews/predict", {"inputs": "bad"}),
        ("GET", "/nowhere", None),
    ],
)
def test_unknown_names_are_404(method, path, body, server) -> None:
    status, content = server(method, path, body)
    assert status == 404
    assert "error" in content


def test_the_adapter_comes_from_path_body_header_or_default(server) -> None:
    body = {"inputs": "bad"}
    assert len(server.post("/adapters/topics/predict", {**body, "model": "spam"}, X_Adapter="spam")) == 3
    assert len(server.post("/predict", {**body, "model": "topics"}, X_Adapter="spam")) == 3
    assert {item["label"] for item in server.post("/predict", body)} == {"negative", "positive"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"inputs": "\xff"}', b"[" * 100_000, b'{"inputs": NaN}', b"[]", b"3", b'"a"', b"null"]
)
def test_bodies_that_are_no_json_objects(body, server) -> None:
    for path in ("/predict", "/", "/classify", "/v2/models/spam/infer", "/predict-many"):
        status, content = server("POST", path, body)
        assert status in (400, 422), (path, content)
        assert "error" in content


def test_openapi_has_every_route_with_examples(server) -> None:
    described = server.get("/openapi.json")
    assert server.get("/api-doc/openapi.json") == described
    for path in ("/predict", "/adapters/{name}", "/v1/classify", "/v2/models/{name}/infer", "/predict-many"):
        content = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"], path
        assert "429" in described["paths"][path]["post"]["responses"]


def test_the_list_of_adapters(server, adapters) -> None:
    listed = server.get("/adapters")
    by_name = {adapter["name"]: adapter for adapter in listed["adapters"]}
    assert by_name.keys() == {folder.name for folder in adapters.iterdir()}
    assert (listed["default"], listed["broken"]) == ("reviews", {})
    assert by_name["several"]["problem_type"] == "multi_label_classification"
    assert by_name["pairs"]["pairs"] is True
    assert by_name["written-by-peft"]["labels"] == ["LABEL_0", "LABEL_1"]
    assert server.get("/adapters/ensemble")["members"] == 3
