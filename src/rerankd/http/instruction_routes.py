"""The instructions that a request may name."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from rerankd.http.route import MeasuredRoute
from rerankd.service.instructions import Instructions


def instruction_routes(instructions: Instructions) -> list[MeasuredRoute]:
    """``GET /v1/instructions``: name, text, variables and use of each."""

    async def listing(request: Request) -> Response:
        rows = [
            {
                "id": preset.name,
                "object": "instruction",
                "text": preset.text,
                "use": preset.use,
                "variables": dict(preset.variables),
                "built_in": preset.is_built_in,
            }
            for preset in instructions.presets.values()
        ]
        return JSONResponse({"object": "list", "data": rows})

    summary = "Instructions by name"
    return [MeasuredRoute("/v1/instructions", listing, tags=["models"], summary=summary)]
