"""A real server does what its OpenAPI document says, whatever schemathesis makes of that document.

Each operation is asked with values that fit the document and with values that do not; each answer
must have a documented status, content type and shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import CHECKS, load_all_checks
from server_process import Server, start

EXAMPLES = 20
"""For each operation, way of making values, and choice of model."""

load_all_checks()
# Two checks of schemathesis do not hold here on purpose: unknown keys, parameters and content types
# are ignored, as the protocols want, so not all that the document does not know is refused; and
# what the document allows may still be refused, since data, datatype and shape must agree.
CHECKED = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)

# They speak of what is not served here, or of the moment; 500 would be a fault.
EXPECTED_5XX = {501, 503, 504}


@pytest.fixture(scope="module")
def server(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with all that adds routes; it must end cleanly."""
    folder = tmp_path_factory.mktemp("server")
    log = folder / "log"
    options = ["--shared-memory"]
    with start(log, "--model-repository", str(model_repository), *options) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in log.read_text()


def known(operation: Any) -> dict[str, str]:
    """Values for a path that lead to a model that is there; none where it might be taken away."""
    path = operation.path
    if "security" in operation.definition.raw:
        return {}
    real = {"model": "affine", "version": "1", "file": "swagger-ui.css"}
    return {name: value for name, value in real.items() if f"{{{name}}}" in path}


def can_be_wrong(operation: Any) -> bool:
    """Whether there is anything to send; in a path, any text may be a name."""
    return bool(list(operation.body) or list(operation.query) or list(operation.headers))


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_as_documented(server: Server, mode: Any) -> None:
    document = server.get("/openapi.json").json
    schema = schemathesis.openapi.from_dict(document)
    asked = 0
    failures = []
    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            if mode is schemathesis.GenerationMode.NEGATIVE and not can_be_wrong(operation):
                continue
            ways = [None, known(operation)] if known(operation) else [None]
            for path_parameters in ways:

                @seed(7)
                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    database=None,
                    phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(mode, path_parameters=path_parameters))
                def check(case: Any) -> None:
                    nonlocal asked
                    asked += 1
                    answer = case.call(base_url=server.url, session=session)
                    case.validate_response(answer, checks=CHECKED)
                    status = answer.status_code
                    assert status < 500 or status in EXPECTED_5XX, case.as_curl_command()

                try:
                    check()
                except Exception as error:
                    failures.append(f"{operation.label}: {error}")
    assert not failures, "\n\n".join(failures)
    assert asked > 60
    assert server.get("/v2/health/ready").status == 200


def test_the_example_of_an_inference_request_is_answered_as_documented(server: Server) -> None:
    document = server.get("/openapi.json").json
    example = document["components"]["schemas"]["InferRequest"]["example"]
    schema = schemathesis.openapi.from_dict(document)
    operation = schema["/v2/models/{model}/infer"]["POST"]
    case = operation.Case(
        path_parameters={"model": "affine"}, body=example, media_type="application/json"
    )
    answer = case.call_and_validate(base_url=server.url, checks=CHECKED)
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["data"] == [3, 5, 7, 9]
