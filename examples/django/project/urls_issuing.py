"""The paths where Portcullis issues the tokens: it answers below /api/token/ itself."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("demo.urls")),
]
