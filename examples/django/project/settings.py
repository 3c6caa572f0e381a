"""Django's settings, with what running behind Portcullis asks for marked as such."""

import os
from datetime import timedelta
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Behind Portcullis -------------------------------------------------------------------------------------

# The gateway reads the same three files (gateway.yaml, `jwt`; rotate_secret.py writes them). The current secret
# signs; the next and the previous one are accepted too, for sessions by Django, for tokens by demo/tokens.py.
# DJANGO_SECRET_KEY pins one secret instead; then gateway.yaml must read it too, and there is no rotation.


def secret(name: str) -> str:
    return (BASE_DIR / name).read_text().strip()


if pinned := os.environ.get("DJANGO_SECRET_KEY"):
    SECRET_KEY, SECRET_KEY_FALLBACKS = pinned, []
else:
    SECRET_KEY = secret("secret.key")
    SECRET_KEY_FALLBACKS = [secret("secret.next.key"), secret("secret.previous.key")]

# The gateway replaces X-Forwarded-* of clients, so they can be believed. They make links, redirects and
# the CSRF check see the scheme and host that the browser used.
USE_X_FORWARDED_HOST = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# `collectstatic` copies here; the gateway serves this folder and Django never sees those requests.
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "collected"

# --- Tokens ------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    # The app checks tokens too: the gateway is the first door, not the only one.
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
SIMPLE_JWT = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=5),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=1),
}

# --- An ordinary Django project ----------------------------------------------------------------------------

DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]").split(",")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "demo",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": BASE_DIR / "db.sqlite3",
        # Several threads write sessions: wait for the lock, and take it when the transaction begins.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
