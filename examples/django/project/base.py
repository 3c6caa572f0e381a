"""What both setups share: running behind Portcullis, and an ordinary project. No word of tokens is here: that is
the matter of settings.py (simplejwt issues) and of settings_issuing.py (Portcullis issues)."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Behind Portcullis -------------------------------------------------------------------------------------

# rotate_secret.py writes the three files. The current secret signs sessions; the next and the previous one are
# accepted too. DJANGO_SECRET_KEY pins one secret instead; then there is no rotation.


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
