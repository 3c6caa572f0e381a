"""Django with all of simplejwt's endpoints, in one of the ways people set it up.

    tokens_site.py MODE PORT FOLDER USERS

MODE is a key of MODES below. USERS is JSON: the users in the order of their ids, each {"name", "password", "active"}.
Signs with the secret in FOLDER/secret. /users/ changes users as an administrator would, shows their passwords' hashes,
and asks for nothing in return.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import django
from django.conf import settings

MODE, PORT, FOLDER, USERS = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])

BLACKLIST_APP = "rest_framework_simplejwt.token_blacklist"
MODES = {
    "plain": ([], {}),
    "blacklist": ([BLACKLIST_APP], {}),
    "rotation": ([BLACKLIST_APP], {"ROTATE_REFRESH_TOKENS": True, "BLACKLIST_AFTER_ROTATION": True}),
    "short": ([], {
        "ACCESS_TOKEN_LIFETIME": timedelta(seconds=1), "REFRESH_TOKEN_LIFETIME": timedelta(seconds=1),
        "SLIDING_TOKEN_REFRESH_LIFETIME": timedelta(seconds=1),
    }),
    "strict": ([BLACKLIST_APP], {"CHECK_REVOKE_TOKEN": True}),
}
apps, simplejwt = MODES[MODE]

settings.configure(
    SECRET_KEY="of no use here: sessions are off, and simplejwt has a key of its own",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", *apps],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=[f"{__name__}.QuickHasher"],
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"],
                    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
    SIMPLE_JWT={"SIGNING_KEY": (FOLDER / "secret").read_text(), **simplejwt},
)
django.setup()

# Django's parts can be imported only now.
from django.contrib.auth import get_user_model  # noqa: E402
from django.contrib.auth.hashers import PBKDF2PasswordHasher  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.decorators import api_view, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework_simplejwt import views  # noqa: E402


class QuickHasher(PBKDF2PasswordHasher):
    """Django's usual one, which is slow on purpose, with fewer turns."""

    iterations = 1000


@api_view()
@permission_classes([IsAuthenticated])
def me(request):
    """Who simplejwt says it is."""
    return Response({"username": request.user.username})


def users(request):
    """Changes one user: {"name", "active"}, {"name", "password"} or {"name", "removed": true}. All hashes, by name."""
    if request.method == "POST":
        change = json.loads(request.body)
        user = get_user_model().objects.get(username=change["name"])
        if change.get("removed"):
            user.delete()
        else:
            if "password" in change:
                user.set_password(change["password"])
            user.is_active = change.get("active", user.is_active)
            user.save()
    return JsonResponse(dict(get_user_model().objects.values_list("username", "password")))


urlpatterns = [
    path("api/token/", views.token_obtain_pair),
    path("api/token/refresh/", views.token_refresh),
    path("api/token/verify/", views.token_verify),
    path("api/token/blacklist/", views.token_blacklist),
    path("api/token/sliding/", views.token_obtain_sliding),
    path("api/token/sliding/refresh/", views.token_refresh_sliding),
    path("api/me/", me),
    path("users/", users),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    for user in USERS:
        get_user_model().objects.create_user(user["name"], password=user["password"], is_active=user["active"])
    call_command("runserver", f"127.0.0.1:{PORT}", use_reloader=False, skip_checks=True)
