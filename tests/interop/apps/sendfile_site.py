"""A Django site in one file that gives away reports with django-sendfile2: it says who may have which, and names the file.

For gunicorn: `sendfile_site:application`. From the environment: SENDFILE_BACKEND, SENDFILE_ROOT.
"""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseForbidden
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not a secret",
    SENDFILE_BACKEND=f"django_sendfile.backends.{os.environ['SENDFILE_BACKEND']}",
    SENDFILE_ROOT=os.environ["SENDFILE_ROOT"],
    SENDFILE_URL="/protected",
)
django.setup()

from django_sendfile import sendfile  # noqa: E402


def report(request, name):
    """A report, for Ada alone."""
    if request.COOKIES.get("user") != "ada":
        return HttpResponseForbidden("only for Ada")
    response = sendfile(request, os.path.join(os.environ["SENDFILE_ROOT"], name), attachment="save" in request.GET)
    response.set_cookie("seen", "yes")
    return response


def home(request):
    """Says that the site runs."""
    return HttpResponse("up")


urlpatterns = [path("", home), path("report/<path:name>", report)]
application = get_wsgi_application()
