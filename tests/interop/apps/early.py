"""A FastAPI app whose handlers answer a POST without reading its body, as most handlers that refuse do."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

app = FastAPI()


@app.post("/early/{number}")
async def early(number: int) -> JSONResponse:
    return JSONResponse({"number": number}, status_code=200 if number % 2 else 401)


@app.get("/ready")
async def ready() -> dict:
    return {"ready": True}
