"""What an ingress and a replica say to each other; plain values that Ray carries between processes."""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.cluster.metrics import Row
from rerankd.engine.base import EngineInfo
from rerankd.errors import ServiceError
from rerankd.prompt.template import Template
from rerankd.service.admission import SizeLimits
from rerankd.service.calibration import Calibration
from rerankd.service.models import ModelSource
from rerankd.types import RerankRequest, RerankResult


@dataclass(frozen=True, slots=True)
class Call:
    """Requests of one caller for one loaded model.

    Attributes:
        seconds_left: until the deadline. Clocks of two machines differ, so no moment is sent; the ingress ends the
            call by its own clock, too.
        name: a served name of the model.
        key: names the prompt's prefix (model, instruction, query); equal keys want the same replica.
        avoid: replicas that had no room for this call.
    """

    requests: tuple[RerankRequest, ...]
    request_id: str
    seconds_left: float
    tenant: str
    use_cache: bool
    name: str
    key: bytes
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that any replica may answer, but those that have.

    Attributes:
        avoid: replicas that have answered; they are asked again only where no other is left.
    """

    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reply:
    """One result a request, in order; or the error that concerns all of them.

    Errors are values here: an exception that Ray carries comes back as Ray's own.
    """

    replica: str
    results: tuple[RerankResult | ServiceError, ...] = ()
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A replica's name, the served names whose model it holds, and its metrics."""

    replica: str
    models: tuple[str, ...]
    metrics: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an ingress knows of a served name, for the routes that show it."""

    name: str
    source: ModelSource
    fingerprint: str
    template: Template
    info: EngineInfo
    instruction: str
    max_pair_tokens: int
    sizes: SizeLimits
    calibration: Calibration | None = None
