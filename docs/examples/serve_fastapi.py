"""A server of one model: image bytes in, a label map or polygons out. Copy this file and change it as you need.

    pip install lpsnet fastapi uvicorn
    python serve_fastapi.py --model camvid_lite0 --port 8000
    curl --data-binary @street.jpg http://127.0.0.1:8000/segment --output labels.png

Memory is bounded: at most `--queue` requests are taken at a time, each with a body of at most `--max-mib`; others get
503. `--workers` of them are decoded and segmented at the same time, none of more than `--max-pixels`. Images are not
put into batches: on a CPU several images side by side, each on one thread, are quicker, and nobody waits for others.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import typer
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

import lpsnet
from lpsnet.data.image_headers import BrokenImageError, UnknownFormatError, read_header
from lpsnet.data.images import decode_image


@dataclass(frozen=True)
class Limits:
    """What is refused, and how much is done at a time."""

    workers: int  # images that are segmented at a time
    queue: int  # requests that are taken at a time, those that wait included
    max_bytes: int  # of a body
    max_pixels: int  # of an image
    read_s: float = 30.0  # seconds in which a body has to come


def create_app(segment: lpsnet.Segmenter, limits: Limits) -> FastAPI:
    """The server's routes: POST /segment, GET /model, GET /health."""
    app = FastAPI(title="lpsnet")
    workers = ThreadPoolExecutor(limits.workers, thread_name_prefix="segment")
    taken = 0  # requests; only the event loop's thread changes it

    @app.post("/segment", response_class=Response)
    async def post_segment(
        request: Request,
        output: Literal["png", "polygons"] = "png",
        tolerance: Annotated[float, Query(ge=0, le=1000)] = 1.0,  # of polygons, in pixels
    ) -> Response:
        nonlocal taken
        if taken >= limits.queue:
            raise HTTPException(503, f"{taken} requests are taken; try again", {"Retry-After": "1"})
        taken += 1
        try:
            data = await read_body(request, limits)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(workers, answer, segment, data, limits.max_pixels, output, tolerance)
        finally:
            taken -= 1

    @app.get("/model")
    async def get_model() -> dict[str, Any]:
        space, record = segment.label_space, segment.record
        classes = [{"name": name, "colour": rgb} for name, rgb in zip(space.names, space.colours, strict=True)]
        return {"classes": classes, "engine": segment.engine, "title": record.title, "licence": record.licence}

    @app.get("/health")
    async def get_health() -> dict[str, Any]:
        return {"status": "ok", "taken": taken, "queue": limits.queue, "workers": limits.workers}

    return app


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, of which no more than the limit is ever kept."""
    refusal = HTTPException(413, f"a body of at most {limits.max_bytes:,} bytes is allowed")
    if int(request.headers.get("content-length", 0)) > limits.max_bytes:  # the server has made sure it is a number
        raise refusal
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.read_s):
            async for part in request.stream():
                size += len(part)
                if size > limits.max_bytes:
                    raise refusal
                parts.append(part)
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {limits.read_s:g} s") from None
    return b"".join(parts)


def answer(segment: lpsnet.Segmenter, data: bytes, max_pixels: int, output: str, tolerance: float) -> Response:
    """Decode and segment one image; runs in a worker's thread."""
    try:
        header = read_header(data)  # nothing is decoded before its size is known
        if header.width * header.height > max_pixels:
            claim = f"the image claims {header.width} x {header.height} pixels"
            raise HTTPException(413, f"{claim}; at most {max_pixels:,} are allowed")
        image = decode_image(Path("the image"), data, header)
    except UnknownFormatError as error:
        raise HTTPException(415, f"the body {error}; send PNG, JPEG, BMP, TIFF or WebP") from None
    except BrokenImageError as error:
        raise HTTPException(422, f"the image {error}") from None
    except lpsnet.LpsnetError as error:
        raise HTTPException(422, str(error)) from None
    result = segment(image)
    if output == "png":
        return Response(cv2.imencode(".png", result.labels)[1].tobytes(), media_type="image/png")
    found = result.polygons(tolerance=tolerance)
    rings = {name: [[ring.tolist() for ring in each.rings] for each in outlines] for name, outlines in found.items()}
    height, width = result.shape
    return JSONResponse({"height": height, "width": width, "polygons": rings})  # the exterior, then holes: x, y


def main(
    model: Annotated[str, typer.Option(help="A model file, or the name of a model that comes with the package.")],
    host: str = "127.0.0.1",
    port: int = 8000,
    runtime: str | None = None,
    workers: Annotated[int, typer.Option(min=1, help="Images at a time.")] = os.cpu_count() or 1,
    threads: Annotated[int, typer.Option(min=1, help="Of the engine, for each of them.")] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Requests that are taken at a time.")] = 32,
    max_mib: Annotated[float, typer.Option(min=0.001, help="Of a body.")] = 16,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 16_000_000,
) -> None:
    """Serve one model over HTTP."""
    segment = lpsnet.Segmenter(model, runtime=runtime, num_threads=threads)
    if not segment.record.image_channels.is_rgb:
        raise SystemExit("this server decodes RGB images; the model takes others")
    limits = Limits(workers, queue, int(max_mib * 2**20), max_pixels)
    uvicorn.run(create_app(segment, limits), host=host, port=port, limit_concurrency=1000)


if __name__ == "__main__":
    typer.run(main)
