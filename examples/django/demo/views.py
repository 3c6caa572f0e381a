"""Small views that show what reaches Django through the gateway."""

import hashlib

from django.http import StreamingHttpResponse
from django.shortcuts import render
from rest_framework.response import Response
from rest_framework.views import APIView

PIECE = 64 * 1024
# What a download consists of: this piece, sixteen times a MiB.
PATTERN = bytes(range(256)) * (PIECE // 256)


def index(request):
    """The public page."""
    return render(request, "demo/index.html")


class Me(APIView):
    """Who the token says you are, and what the gateway told Django about the request."""

    def get(self, request):
        return Response(
            {
                "id": request.user.pk,
                "username": request.user.get_username(),
                "groups": sorted(group.name for group in request.user.groups.all()),
                "host": request.get_host(),
                "secure": request.is_secure(),
                "forwarded_for": request.headers.get("X-Forwarded-For"),
                "forwarded_proto": request.headers.get("X-Forwarded-Proto"),
                "user_id": request.headers.get("X-User-Id"),
            }
        )


class Upload(APIView):
    """Counts and hashes a body of any size, piece by piece; nothing is kept."""

    def post(self, request):
        digest, size = hashlib.sha256(), 0
        # DRF gives no stream for an empty body.
        while piece := request.stream.read(PIECE) if request.stream else b"":
            digest.update(piece)
            size += len(piece)
        return Response({"bytes": size, "sha256": digest.hexdigest()})


class Download(APIView):
    """Streams `?mib=N` MiB (1 to 1024) without a Content-Length."""

    def get(self, request):
        try:
            mib = int(request.query_params.get("mib", "1"))
        except ValueError:
            mib = 0
        if not 1 <= mib <= 1024:
            return Response({"mib": ["A whole number from 1 to 1024."]}, status=400)
        pieces = (PATTERN for _ in range(mib * 1024 * 1024 // PIECE))
        return StreamingHttpResponse(pieces, content_type="application/octet-stream")
