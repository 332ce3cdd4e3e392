"""The application: a function for each path, around a recommender that is exchanged while it answers."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from metatl.common.arguments import expected_by
from metatl.exceptions import MetatlError
from metatl.serving.recommender import Recommender
from metatl.serving.service.item_search import ItemSearch
from metatl.serving.service.limits import RateLimit, TooLargeError, read_body
from metatl.serving.service.messages import ExplainRequest, RecommendRequest, SimilarRequest
from metatl.serving.service.openapi import describe
from metatl.serving.service.service_metrics import ServiceMetrics
from metatl.serving.service.settings import ServiceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from metatl.serving.recommendations import Recommendation, Recommendations

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' https: data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
_MEDIA = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_FEW_USERS = 16
"""So few users are answered faster than a thread is woken."""

RequestT = TypeVar("RequestT", bound=BaseModel)
ResultT = TypeVar("ResultT")


def from_environment() -> Starlette:
    """Build the application of a worker; its settings are in the environment."""
    return build(ServiceSettings.from_environment())


def build(settings: ServiceSettings) -> Starlette:
    """Build the application.

    Parameters
    ----------
    settings : ServiceSettings
        The run and the limits.

    Returns
    -------
    Starlette
        The application; it loads the run when it starts.

    Raises
    ------
    RunError
        See :meth:`metatl.Recommender.load`.
    """
    return _Service(settings).application()


class _Service:
    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.recommender = load(settings)
        self.search = ItemSearch(self.recommender.run, self.recommender.items)
        self.metrics = ServiceMetrics()
        self.rate = None if settings.rate is None else RateLimit(settings.rate)
        self.started = time.time()
        self.pages = {
            path: (resources.files("metatl.serving.service") / "page" / name).read_bytes()
            for path, name in _PAGE.items()
        }
        self.description = json.dumps(describe()).encode()
        self._note_run()

    def application(self) -> Starlette:
        routes = [
            Route("/recommend", self._counted(self.recommend), methods=["POST"]),
            Route("/similar", self._counted(self.similar), methods=["POST"]),
            Route("/explain", self._counted(self.explain), methods=["POST"]),
            Route("/items", self._counted(self.items)),
            Route("/columns", self._counted(self.columns)),
            Route("/health", self._unlimited(self.health)),
            Route("/ready", self._unlimited(self.ready)),
            Route("/metrics", self._unlimited(self.write_metrics)),
            Route("/openapi.json", self._unlimited(self.openapi)),
            *(Route(path, self._unlimited(self.page)) for path in _PAGE),
        ]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error, Exception: _unexpected},
        )

    # --- Exchange of the run

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()

    async def _watch(self) -> None:
        """Load the run that has replaced the present one, in a thread, while the present one answers."""
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            try:
                reloaded = await _in_thread(self.recommender.reload_if_replaced)
                if reloaded:
                    search = await _in_thread(ItemSearch, self.recommender.run, self.recommender.items)
                    self.search = search
                    self.metrics.reloads.inc()
                    self._note_run()
            except (MetatlError, OSError):
                # Half written, or damaged: the present run goes on, and the next look tries again.
                continue

    def _note_run(self) -> None:
        path = self.recommender.run.path
        if path is not None:
            self.metrics.run_time.set((Path(path) / "run.json").stat().st_mtime)

    # --- Requests

    def _counted(self, answer: Callable[[Request], Awaitable[Response]]) -> Any:
        """Apply the limits, count the request, and turn errors into one line of JSON."""

        async def answered(request: Request) -> Response:
            begin = time.perf_counter()
            response = await self._limited(request, answer)
            response.headers.update(_HEADERS)
            self.metrics.observe(request.url.path, response.status_code, begin)
            return response

        return answered

    def _unlimited(self, answer: Callable[[Request], Awaitable[Response]]) -> Any:
        async def answered(request: Request) -> Response:
            response = await answer(request)
            response.headers.update(_HEADERS)
            return response

        return answered

    async def _limited(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        client = request.client.host if request.client else ""
        if self.rate is not None and not self.rate.allows(client):
            return _error(429, f"found more than {self.settings.rate:g} requests a second; ask more slowly")
        try:
            with anyio.fail_after(self.settings.timeout):
                return await answer(request)
        except TimeoutError:
            return _error(503, f"found no answer within {self.settings.timeout:g} s; ask for less")
        except TooLargeError:
            return _error(
                413, f"body: found more than {self.settings.max_body_bytes} bytes; ask for fewer users"
            )
        except MetatlError as error:
            return _error(422, str(error))

    async def _read(self, request: Request, model: type[RequestT]) -> RequestT:
        body = await read_body(request, self.settings.max_body_bytes)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"] if not str(part).startswith("list["))
            raise HTTPException(422, f"{name or 'body'}: {_problem(first)}") from None

    def _check_count(self, name: str, count: int, most: int) -> None:
        if count > most:
            raise HTTPException(422, f"{name}: found {count}, expected at most {most}")

    async def recommend(self, request: Request) -> Response:
        asked = await self._read(request, RecommendRequest)
        if (asked.history is None) == (asked.histories is None):
            raise HTTPException(422, "histories: expected either history or histories")
        histories = [asked.history] if asked.history is not None else asked.histories or []
        self._check_count("histories", len(histories), self.settings.max_histories)
        self._check_count("history", max(map(len, histories), default=0), self.settings.max_items)
        self._check_count("top", asked.top, self.settings.max_items)

        def answer() -> Recommendations:
            return self.recommender.recommend(
                histories,
                asked.top,
                exclude=asked.exclude,
                allow=asked.allow,
                where=asked.where,
                include_history=asked.include_history,
                inner_step=asked.inner_step,
            )

        few = len(histories) <= _FEW_USERS
        lists = answer() if few else await _in_thread(answer)
        self.metrics.users.inc(len(histories))
        users = [
            {
                "items": [self._item(one) for one in lists[user]],
                "basis": lists.basis(user),
                "unknown_items": list(lists.unknown_items[user]),
            }
            for user in range(len(lists))
        ]
        return _json({"users": users})

    async def similar(self, request: Request) -> Response:
        asked = await self._read(request, SimilarRequest)
        self._check_count("ids", len(asked.ids), self.settings.max_items)
        self._check_count("top", asked.top, self.settings.max_items)
        found = await _in_thread(self.recommender.similar_items, asked.ids, asked.top)
        return _json({"items": [[self._item(one) for one in items] for items in found]})

    async def explain(self, request: Request) -> Response:
        asked = await self._read(request, ExplainRequest)
        self._check_count("history", len(asked.history), self.settings.max_items)
        explained = await _in_thread(self.recommender.explain, asked.history, asked.item)
        return _json(
            {
                "item_id": explained.item_id,
                "score": explained.score,
                "items": [one._asdict() for one in explained.items],
                "transitions": [one._asdict() for one in explained.transitions],
                "adaptation": explained.adaptation,
                "base": explained.base,
            }
        )

    async def items(self, request: Request) -> Response:
        limit = request.query_params.get("limit", "20")
        if not limit.isdecimal() or int(limit) < 1:
            raise HTTPException(422, f"limit: found {limit!r:.40}, expected a whole number of at least 1")
        self._check_count("limit", int(limit), self.settings.max_items)
        query = request.query_params.get("query", "")
        rows, total = await _in_thread(self.search.find, query, int(limit))
        return _json({"items": rows, "total": total})

    async def columns(self, _: Request) -> Response:
        return _json({"columns": await _in_thread(self.search.columns)})

    def _item(self, recommended: Recommendation) -> dict[str, Any]:
        answer: dict[str, Any] = {"item_id": recommended.item_id, "score": recommended.score}
        if self.recommender.items is not None:
            index = int(self.recommender.run.lookup.find([recommended.item_id], str)[0])
            answer["item"] = self.search.row(index)
        return answer

    # --- The process

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok", "seconds": round(time.time() - self.started, 3)})

    async def ready(self, _: Request) -> Response:
        served = self.recommender.run
        record = served.record
        return _json(
            {
                "status": "ready",
                "model": record.model,
                "preset": record.preset,
                "items": served.num_items,
                "item_table": served.item_format,
                "inner_step": served.has_inner_step,
                "dataset_fingerprint": record.dataset_fingerprint,
            }
        )

    async def write_metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, _: Request) -> Response:
        return Response(self.description, media_type="application/json")

    async def page(self, request: Request) -> Response:
        path = request.url.path
        return Response(self.pages[path], media_type=_MEDIA[_PAGE[path].rpartition(".")[2]])


def load(settings: ServiceSettings) -> Recommender:
    """Load the recommender of the service; the bundled wines bring their own item table.

    Parameters
    ----------
    settings : ServiceSettings
        The run and its item table.

    Returns
    -------
    Recommender
        Ready to answer.
    """
    from metatl.datasets import BUNDLED, item_table
    from metatl.runs.run_directory import read_record

    items: Any = settings.items
    if items is None and read_record(settings.run).data == BUNDLED:
        items = item_table()
    return Recommender.load(
        settings.run,
        item_table=settings.item_table,
        items=items,
        threads=settings.threads,
        approximate=settings.approximate,
    )


async def _in_thread(function: Callable[..., ResultT], *arguments: Any) -> ResultT:
    """Call a function in a thread, which is left to itself when the time of the request is over."""
    return await anyio.to_thread.run_sync(partial(function, *arguments), abandon_on_cancel=True)


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, default=str), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json({"error": " ".join(message.split())}, status)


def _problem(problem: Any) -> str:
    if problem["type"] == "json_invalid":
        return "found no JSON, expected an object"
    return f"found {problem['input']!r:.80}, {expected_by(problem)}"


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (what the handler is registered for)
    response = _error(error.status_code, str(error.detail))
    response.headers.update({**_HEADERS, **(error.headers or {})})
    return response


async def _unexpected(_: Request, __: Exception) -> Response:
    response = JSONResponse({"error": "an unexpected error; the log has it"}, 500)
    response.headers.update(_HEADERS)
    return response
