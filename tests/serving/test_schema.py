"""The server keeps what its OpenAPI document promises, whatever is sent: schemathesis makes up the requests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.serving.running import RunningServer, save_kinds

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install schemathesis")
pytest.importorskip("fastapi", reason="needs the extra 'serve'")
# Texts that fit the document may still not fit an adapter, such as pairs for one that takes single texts: 422.
from schemathesis.core.failures import FailureGroup  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

# The document is made up once, requests are sent to a real server, and a busy machine is no failure.
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@pytest.fixture(scope="module")
def server(backbone, backbone_folder, tmp_path_factory) -> Iterator[RunningServer]:
    folder = save_kinds(tmp_path_factory.mktemp("served"), backbone("bert"), ["reviews", "topics", "flags", "stars"])
    with RunningServer(
        adapters=[str(folder)], backbone=[str(backbone_folder("bert"))], default_adapter="reviews", log_requests=False
    ) as running:
        yield running


def check_all(server: RunningServer, examples: int) -> dict[str, str | None]:
    """Send made-up requests to every route and check the answers.

    Returns:
        What is wrong, by route; None where nothing is.
    """
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    found: dict[str, str | None] = {}
    for operation in operations:

        @settings(max_examples=examples, **QUIET)
        @given(case=operation.as_strategy())
        def check(case) -> None:
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        try:
            check()
            found[operation.label] = None
        except FailureGroup as failures:
            found[operation.label] = str(failures)
    return found


def test_answers_are_those_of_the_document(server) -> None:
    found = check_all(server, examples=5)
    assert len(found) >= 15
    assert [message for message in found.values() if message] == []


@pytest.mark.long
def test_answers_are_those_of_the_document_for_many_requests(server) -> None:
    assert [message for message in check_all(server, examples=300).values() if message] == []


def test_every_route_is_in_the_document_with_an_example(server) -> None:
    document = server.app.openapi()
    json.dumps(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
            assert operation.get("tags"), (method, path)
            if method == "post":
                body = operation["requestBody"]["content"]["application/json"]
                assert "example" in body or "examples" in body, path
