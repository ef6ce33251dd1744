"""`/docs`: Swagger UI over `/openapi.json`, from a package on this machine, without a network.

The scripts and styles are those of PyPI's `swagger-ui-bundle`, an optional dependency.  Only the
files named here are served; they are read when somebody looks, in a thread, and kept.
"""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from pyserve.http.answers import Answer, error_answer
from pyserve.http.compression import compressed
from pyserve.http.routing import Params, Router

_SCRIPT = "text/javascript; charset=utf-8"

# Where each file of the package goes by its type.
_PACKAGED = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": _SCRIPT,
    "favicon-32x32.png": "image/png",
}

# Addresses are relative: a proxy may serve all this below a path of its own.
_PAGE = b"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pyserve</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# The packaged Swagger UI reads OpenAPI 3.0 and stops at any other number.  Our document uses only
# words that 3.0 and 3.1 share, so the number is all that has to change.
_START = b"""\
fetch("openapi.json")
  .then((answer) => answer.json())
  .then((spec) => {
    spec.openapi = "3.0.3";
    delete spec.info.license.identifier;
    SwaggerUIBundle({ spec, dom_id: "#swagger-ui", validatorUrl: null, deepLinking: true });
  })
  .catch((error) => {
    document.getElementById("swagger-ui").textContent = `cannot read openapi.json: ${error}`;
  });
"""

# Nothing from elsewhere. Swagger UI's styles hold their pictures, as data.
_PAGE_FIELDS = (
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    b"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Referrer-Policy: no-referrer\r\n"
)
_MISSING = "the interactive documentation is not installed: pip install 'pyserve[docs]'"


class _File(NamedTuple):
    body: bytes
    fields: bytes


class DocsUi:
    """`/docs`."""

    def __init__(self) -> None:
        self._files: asyncio.Future[dict[str, _File]] | None = None

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        router.add("GET", "/docs", self.page)
        router.add("GET", "/docs/{file}", self.file)

    async def page(self, request: web.BaseRequest, params: Params) -> Answer:
        """This documentation as a page to read and to try."""
        if not await self._read():
            return error_answer(404, _MISSING)
        return Answer(200, _PAGE, _PAGE_FIELDS)

    async def file(self, request: web.BaseRequest, params: Params) -> Answer:
        """A script, a style or a picture of the documentation's page."""
        files = await self._read()
        if not files:
            return error_answer(404, _MISSING)
        found = files.get(params["file"])
        if found is None:
            return error_answer(404, f"there is no such file; there are {', '.join(files)}")
        return await compressed(request, Answer(200, found.body, found.fields))

    async def _read(self) -> dict[str, _File]:
        """Return the files by name, none where the package is not installed; read once."""
        if self._files is None:
            loop = asyncio.get_running_loop()
            self._files = loop.run_in_executor(None, _read_files)
        # Another may wait for it too, so it is not given up with this request.
        return await asyncio.shield(self._files)


def _read_files() -> dict[str, _File]:
    try:
        folder = Path(import_module("swagger_ui_bundle").swagger_ui_path)
    except ImportError:
        return {}
    files = {"start.js": _file(_START, _SCRIPT)}
    for name, content_type in _PACKAGED.items():
        files[name] = _file((folder / name).read_bytes(), content_type)
    return files


def _file(body: bytes, content_type: str) -> _File:
    fields = (
        f"Content-Type: {content_type}\r\n"
        "Cache-Control: max-age=3600\r\n"
        "X-Content-Type-Options: nosniff\r\n"
    )
    return _File(body, fields.encode())
