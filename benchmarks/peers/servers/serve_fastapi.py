"""FastAPI around `model(x)`; uvicorn imports `app`.  CASE and THREADS come from the environment."""

import os

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from served_model import ServedModel

app = FastAPI()
model = ServedModel(os.environ["CASE"], threads=int(os.environ["THREADS"]))


@app.post("/predict")
async def predict(request: Request) -> Response:
    """Bytes to bytes, JSON to JSON."""
    if request.headers.get("content-type") == "application/json":
        row = model.from_lists(await request.json())
        return JSONResponse(model.to_lists(model.run([row])[0]))
    row = model.from_bytes(await request.body())
    body = model.to_bytes(model.run([row])[0])
    return Response(body, media_type="application/octet-stream")
