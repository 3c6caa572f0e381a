"""Who a request is from, by the headers that the gateway sets once it has checked the token. No token is read here, and
no password: that is the gateway's work. Why the headers may be believed is in README.md."""

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

# As gateway.yaml has them under `forward`.
NAME, ID, ROLES = "X-User-Name", "X-User-Id", "X-User-Roles"


class GatewayAuthentication(BaseAuthentication):
    """The user whom the gateway names; nobody where it names none."""

    def authenticate(self, request):
        name = header(request, NAME)
        # Over TCP anybody could have written the headers. A unix socket's peers have no address.
        if not name or request.META.get("REMOTE_ADDR"):
            return None
        user = named(name)
        claimed = header(request, ID)
        # Whoever has the name now need not be who had it when the id was written down.
        if claimed is not None and claimed != str(user.pk):
            raise AuthenticationFailed("The user has another id.", code="user_not_found")
        # Django's own switch still works, beside `portcullis user disable`.
        if not user.is_active:
            raise AuthenticationFailed("User is inactive", code="user_inactive")
        take_roles(user, header(request, ROLES))
        return user, None

    def authenticate_header(self, request) -> str:
        """Makes the answer to nobody a 401."""
        return 'Bearer realm="api"'


def header(request, name: str) -> str | None:
    """A header as the gateway wrote it: in UTF-8, which WSGI hands on as Latin-1."""
    value = request.headers.get(name)
    try:
        return value if value is None else value.encode("latin-1").decode()
    except UnicodeError:
        raise AuthenticationFailed(f"{name} is not UTF-8.") from None


def named(name: str):
    """The user of this name. A new one can log in nowhere in Django: the password is known to the gateway alone."""
    model = get_user_model()
    password = {"password": make_password(None)}
    return model._default_manager.get_or_create(**{model.USERNAME_FIELD: name}, defaults=password)[0]


def take_roles(user, roles: str | None) -> None:
    """Makes the user a member of the groups that are called as the roles, and of no other; a role without a group is
    nothing to Django. Whether somebody is staff, or a superuser, stays Django's own matter."""
    wanted = set(filter(None, (roles or "").split(",")))
    if wanted != set(user.groups.values_list("name", flat=True)):
        user.groups.set(Group.objects.filter(name__in=wanted))
