"""A FastAPI app behind Portcullis: it reads who the user is from headers, and has no token code.

    uvicorn app:app --port 8000

The gateway sets X-User-Id, X-User-Name and X-User-Roles from the claims of a verified token, and removes what clients
send under these names. So the app must be reachable through the gateway alone: on loopback, as here, or on a Unix socket
(`uvicorn app:app --uds app.sock`).
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request
from pydantic import BaseModel

app = FastAPI(title="Orders")


class User(BaseModel):
    id: str
    name: str
    roles: list[str]


def signed_in(
    x_user_id: Annotated[str, Header()],
    x_user_name: Annotated[str, Header()] = "",
    x_user_roles: Annotated[str, Header()] = "",
) -> User:
    return User(id=x_user_id, name=x_user_name, roles=[role for role in x_user_roles.split(",") if role])


SignedIn = Annotated[User, Depends(signed_in)]


@app.get("/")
def home(request: Request):
    """Public. `request.url` has the scheme, host and port that the client used."""
    return {"url": str(request.url), "client": request.client.host}


@app.get("/api/me")
def me(user: SignedIn) -> User:
    return user


@app.get("/api/admin/report")
def report(user: SignedIn):
    """For the role `admin` alone, which gateway.yaml says."""
    return {"asked_by": user.name}
