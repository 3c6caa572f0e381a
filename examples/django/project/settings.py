"""Django's settings where Django issues the tokens, with simplejwt. What both setups share is in base.py."""

from datetime import timedelta

from project.base import *
from project.base import INSTALLED_APPS, SECRET_KEY

INSTALLED_APPS = [*INSTALLED_APPS, "demo.apps.WithSimpleJwtConfig"]
ROOT_URLCONF = "project.urls"

REST_FRAMEWORK = {
    # The app checks tokens too: the gateway is the first door, not the only one.
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
# The gateway reads the same three files as base.py (gateway.yaml, `jwt`). The current secret signs; the next and the
# previous one are accepted too, by the gateway, and here by demo/tokens.py. With DJANGO_SECRET_KEY, gateway.yaml must
# read that instead.
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=5),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=1),
}
