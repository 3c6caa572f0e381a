"""The demo's own paths, the same whoever issues the tokens."""

from django.urls import path

from demo import views

urlpatterns = [
    path("", views.index),
    path("api/me/", views.Me.as_view()),
    path("api/upload/", views.Upload.as_view()),
    path("api/download/", views.Download.as_view()),
]
