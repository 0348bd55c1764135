"""The application: the routes, as its OpenAPI description has them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from fl_ppseg.config.bounds import MAX_SIDE
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.service.admission import BUSY_SECONDS
from fl_ppseg.service.answers import Answer, AnswerKind
from fl_ppseg.service.body import MEDIA_TYPE
from fl_ppseg.service.documents import Bounds, ClassEntry, Detail, ModelDocument, Polygons, State
from fl_ppseg.service.envelope import Envelope
from fl_ppseg.service.limits import Limits
from fl_ppseg.service.metrics import MEDIA_TYPE as FIGURES
from fl_ppseg.service.page_files import PageFile, index_of, page_files
from fl_ppseg.service.queries import Attack, Queries
from fl_ppseg.service.tokens import Tokens
from fl_ppseg.system.version import VERSION

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_BODY: Final = {"requestBody": {"required": True, "content": {MEDIA_TYPE: _BINARY}}}
_PNG: Final = {"content": {MEDIA_TYPE: _BINARY}}
_REFUSALS: Final = {
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "More bytes or pixels than are taken or sent.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "No PNG.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "A PNG that is no query to this model, or a bad parameter.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests of this address; see Retry-After.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A defect; the service goes on.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is busy; see Retry-After.",
}
_LATER: Final = {"headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}}
Side = Annotated[
    Annotated[int, Field(ge=1, le=MAX_SIDE)] | SkipJsonSchema[None],
    Query(description="Of the answer, in pixels; by default that of the query."),
]
Form = Annotated[
    AnswerKind,
    Query(
        description="`labels`: 8-bit grey PNG of train_ids. `confidence`: 8-bit grey PNG of "
        "round(255 p). `both`: RGB PNG, red: train_ids, green: round(255 p), blue: 0. `polygons`: "
        "JSON."
    ),
]


def create_app(
    segmenter: Segmenter,
    *,
    limits: Limits | None = None,
    tokens: Tokens | None = None,
    attack: Attack | None = None,
    page: Mapping[str, PageFile] | None = None,
) -> FastAPI:
    """The service of a model.

    Args:
        segmenter: The model.
        limits: What is borne at most.
        tokens: Without one of them nothing under `/v1` and no figures are told; None: to all.
        attack: The network behind `/v1/reconstruct`, for the model's cipher.
        page: The files of the page at `/`; by default the package's own.
    """
    queries = Queries(segmenter, limits or Limits(), attack)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with queries.running():
            yield

    app = FastAPI(
        title="Segmentation of encrypted images",
        description="Takes images that were encrypted before they were sent, and holds no key.",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        exception_handlers={RequestValidationError: _bad_parameter},
    )
    guards = [] if tokens is None else [Depends(tokens)]
    app.include_router(_model_routes(queries), prefix="/v1", dependencies=guards)
    app.include_router(_figures(queries), dependencies=guards)
    app.include_router(_states(queries))
    app.include_router(_page(page_files() if page is None else page))
    routes = frozenset(["/", *app.openapi()["paths"]])
    app.add_middleware(Envelope, metrics=queries.metrics, routes=routes)
    return app


def _model_routes(queries: Queries) -> APIRouter:
    router = APIRouter()

    @router.get("/model", summary="The model", responses=_refusals(HTTPStatus.UNAUTHORIZED))
    async def model() -> ModelDocument:
        return _described(queries)

    @router.post(
        "/segment",
        summary="Segment an encrypted image",
        response_class=Response,
        responses=_refusals(HTTPStatus.UNAUTHORIZED, *_REFUSALS)
        | {200: _PNG | {"model": Polygons, "description": "The segmentation, as asked for."}},
        openapi_extra=_BODY,
    )
    async def segment(
        request: Request, answer: Form = "labels", height: Side = None, width: Side = None
    ) -> Response:
        return _response(await queries.segment(request, answer, height, width))

    @router.post(
        "/reconstruct",
        summary="What an attacker's network makes of an encrypted image",
        response_class=Response,
        responses=_refusals(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, *_REFUSALS)
        | {200: _PNG | {"description": "An RGB PNG of the query's size."}},
        openapi_extra=_BODY,
    )
    async def reconstruct(request: Request) -> Response:
        return _response(await queries.reconstruct(request))

    return router


def _figures(queries: Queries) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses=_refusals(HTTPStatus.UNAUTHORIZED)
        | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(queries.metrics.text(), media_type=FIGURES)

    return router


def _states(queries: Queries) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", summary="Whether the service runs")
    async def healthz() -> State:
        return State(status="ok")

    @router.get(
        "/readyz",
        summary="Whether the service takes requests",
        responses=_refusals(HTTPStatus.SERVICE_UNAVAILABLE),
    )
    async def readyz() -> State:
        if queries.admission.is_full:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the service is busy",
                {"Retry-After": str(BUSY_SECONDS)},
            )
        return State(status="ready")

    return router


def _page(files: Mapping[str, PageFile]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> Response:
        return _file(files, index_of(files))

    @router.get("/page/{name:path}")
    async def file(name: str) -> Response:
        return _file(files, name)

    return router


def _file(files: Mapping[str, PageFile], name: str | None) -> Response:
    if name is None or name not in files:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    found = files[name]
    return Response(
        found.content, media_type=found.media_type, headers={"Cache-Control": "no-cache"}
    )


def _described(queries: Queries) -> ModelDocument:
    segmenter, limits = queries.segmenter, queries.limits
    colours = segmenter.classes.colours.tolist()
    return ModelDocument(
        name=segmenter.name,
        version=VERSION,
        query=segmenter.spec,
        classes=[
            ClassEntry(name=name, train_id=train_id, colour=tuple(colours[train_id]))
            for train_id, name in enumerate(segmenter.classes.names)
        ],
        limits=Bounds(max_bytes=limits.max_bytes, max_pixels=limits.max_pixels),
        reconstruct=queries.attack is not None,
    )


def _refusals(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    return {
        status.value: {"model": Detail, "description": _REFUSALS.get(status, status.phrase)}
        | (
            _LATER
            if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
            else {}
        )
        for status in statuses
    }


def _response(answer: Answer) -> Response:
    return Response(answer.content, media_type=answer.media_type)


async def _bad_parameter(request: Request, error: Exception) -> Response:
    """One line of the first thing that is wrong with the parameters."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse(
        {"detail": f"{first['loc'][1]}: {first['msg']}"}, HTTPStatus.UNPROCESSABLE_ENTITY
    )
