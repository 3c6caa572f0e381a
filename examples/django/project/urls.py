"""The project's paths. Which of them need a token is decided in gateway.yaml, and by DRF once more."""

from django.contrib import admin
from django.urls import path
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView, TokenVerifyView

from demo import views

urlpatterns = [
    path("", views.index),
    path("admin/", admin.site.urls),
    path("api/token/", TokenObtainPairView.as_view()),
    path("api/token/refresh/", TokenRefreshView.as_view()),
    path("api/token/verify/", TokenVerifyView.as_view()),
    path("api/me/", views.Me.as_view()),
    path("api/upload/", views.Upload.as_view()),
    path("api/download/", views.Download.as_view()),
]
