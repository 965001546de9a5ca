"""The application: routes, guard, documentation, and what happens at start and end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from jernih import __version__
from jernih.answer import Answerer
from jernih.data.untrusted import UntrustedImages
from jernih.serve.errors import Refused
from jernih.serve.guard import Guard
from jernih.serve.metrics import CONTENT_TYPE
from jernih.serve.protocol import protocol_routes
from jernih.serve.routes import image_routes
from jernih.serve.service import Service
from jernih.serve.settings import ServeSettings
from jernih.serve.workers import ModelProcesses

SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
}


def build_app(
    answerer: Answerer,
    settings: ServeSettings | None = None,
    *,
    images: UntrustedImages | None = None,
    workers: ModelProcesses | None = None,
    token: str | None = None,
    page: Callable[[FastAPI], FastAPI] | None = None,
) -> FastAPI:
    """The service as a FastAPI application, for uvicorn or any ASGI server.

    Args:
        answerer: who is asked.
        settings: limits and batching.
        images: who reads images; left out: one within the bounds that the settings give.
        workers: copies of the model in processes of their own, for the routes; None for the
            answerer in this process.
        token: what clients have to show as a bearer token; None for nothing.
        page: puts a web page under ``/``; None for none.

    Raises:
        InputError: for a model that cannot be asked about an image.
    """
    service = Service(answerer, settings or ServeSettings(), images, workers)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_sync(service.warm_up)
        yield
        await run_sync(service.close)

    app = FastAPI(
        title="Jernih",
        version=__version__,
        description="A defended image classifier: images are restored before they are classified.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    _handle_errors(app, service)
    app.include_router(image_routes(service))
    app.include_router(protocol_routes(service))
    _add_state(app, service)
    documented = _add_documentation(app)
    if page is not None:
        app = page(app)
    elif documented:

        @app.get("/", include_in_schema=False)
        async def first() -> RedirectResponse:
            return RedirectResponse("/docs")

    app.add_middleware(
        Guard, metrics=service.metrics, max_bytes=service.settings.max_bytes, token=token
    )
    return app


def _handle_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, refusal: Refused) -> Response:
        service.metrics.refused.labels(refusal.code).inc()
        return JSONResponse(refusal.body(request.url.path), refusal.status, refusal.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = SENTENCES.get(error.status_code, "The request cannot be answered.")
        body = Refused(
            error.status_code, "not_found" if error.status_code == 404 else "invalid", message
        ).body(request.url.path)
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        body = Refused(422, "invalid", f"{where}: {first['msg']}.").body(request.url.path)
        return JSONResponse(body, 422)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["state"], responses={503: {"description": "Not ready."}})
    async def health() -> Response:
        """Whether the service can answer: 200, or 503 while it starts or ends."""
        state = {
            "status": "ready" if service.ready else "not ready",
            "model": service.settings.name,
            "version": __version__,
        }
        return JSONResponse(state, 200 if service.ready else 503)

    @app.get("/metrics", tags=["state"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.page(), media_type=CONTENT_TYPE)

    @app.get("/v1/model", tags=["state"])
    async def model() -> dict[str, Any]:
        """What the model is, and the figures that it reached, with threat model, n and interval."""
        defended = service.answerer.defended
        detector = defended.detector
        prepare = defended.prepare
        return {
            "name": service.settings.name,
            "version": __version__,
            "classes": list(service.answerer.classes),
            "classifier": defended.classifier.description.get("name"),
            "purifier": defended.purifier.describe(),
            "detector": None if detector is None else detector.describe(),
            "threshold": None if detector is None else detector.threshold,
            "policy": defended.policy,
            "prepare": None if prepare is None else {"size": prepare.size, "fit": prepare.fit},
            "card": defended.card,
        }


def _add_documentation(app: FastAPI) -> bool:
    """``/docs`` from files of the package swagger-ui-bundle, so that it works offline."""
    try:
        from swagger_ui_bundle import swagger_ui_path
    except ImportError:
        return False
    app.mount("/docs/files", StaticFiles(directory=swagger_ui_path))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Jernih",
            swagger_js_url="/docs/files/swagger-ui-bundle.js",
            swagger_css_url="/docs/files/swagger-ui.css",
            swagger_favicon_url="/docs/files/favicon-32x32.png",
        )

    return True
