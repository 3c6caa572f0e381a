"""Django, REST framework and simplejwt in one file, with simplejwt's signatures of a chosen algorithm.

    simplejwt_site.py ALGORITHM PORT FOLDER NAME PASSWORD

HS256: signs with the secret in FOLDER/secret. RS256: makes a key, and shows its public half at /jwks.json, as
PyJWT exports it: simplejwt's tokens have no `kid`, so the key has none either. The user is made at the start.
"""

import sys
from datetime import timedelta
from pathlib import Path

import django
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.conf import settings
from jwt.algorithms import RSAAlgorithm

ALGORITHM, PORT, FOLDER, NAME, PASSWORD = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5]

if ALGORITHM == "HS256":
    public, signing = None, {"SIGNING_KEY": (FOLDER / "secret").read_text()}
else:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key()
    signing = {
        "SIGNING_KEY": private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "VERIFYING_KEY": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "ISSUER": "interop", "AUDIENCE": "orders-api",
    }

settings.configure(
    SECRET_KEY="of no use here: sessions are off, and simplejwt has a key of its own",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
                    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
    SIMPLE_JWT={"ALGORITHM": ALGORITHM, "ACCESS_TOKEN_LIFETIME": timedelta(minutes=5), **signing},
)
django.setup()

# Django's parts can be imported only now.
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.decorators import api_view, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView  # noqa: E402


@api_view()
@permission_classes([IsAuthenticated])
def me(request):
    """Who simplejwt says it is, and who the gateway says it is."""
    return Response({"username": request.user.username, "user_id": request.headers.get("X-User-Id")})


def jwks(_request):
    return JsonResponse({"keys": [RSAAlgorithm.to_jwk(public, as_dict=True)] if public else []})


urlpatterns = [
    path("api/token/", TokenObtainPairView.as_view()),
    path("api/token/refresh/", TokenRefreshView.as_view()),
    path("api/me/", me),
    path("jwks.json", jwks),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_user(NAME, password=PASSWORD)
    call_command("runserver", f"127.0.0.1:{PORT}", use_reloader=False, skip_checks=True)
