"""Django's settings where Portcullis issues the tokens (issuing/README.md): no simplejwt, and no secret that the gateway
has too. SECRET_KEY, from base.py, signs the admin pages' sessions alone."""

from project.base import *
from project.base import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "demo", "issuing"]
ROOT_URLCONF = "project.urls_issuing"

REST_FRAMEWORK = {
    # The gateway has checked the token, and says in headers whose it was.
    "DEFAULT_AUTHENTICATION_CLASSES": ["issuing.authentication.GatewayAuthentication"],
    # No headers, nobody in: a view that says nothing is closed.
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
