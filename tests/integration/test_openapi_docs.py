"""/docs in a real browser: Swagger UI shows every operation, within the page's own policy."""

from pathlib import Path

from browser import needs_browser, rendered
from server_process import Server


@needs_browser
def test_the_page_shows_every_operation(server: Server, tmp_path: Path) -> None:
    page, log = rendered(f"{server.url}/docs", tmp_path)
    document = server.get("/openapi.json").json
    for methods in document["paths"].values():
        for operation in methods.values():
            (tag,) = operation["tags"]
            assert f'id="operations-{tag}-{operation["operationId"]}"' in page
    assert "Unable to render" not in page
    assert "Content Security Policy" not in log, log
