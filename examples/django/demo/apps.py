"""The demo app; at start it teaches simplejwt to accept the next and the previous secret too."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo"

    def ready(self) -> None:
        from rest_framework_simplejwt import state

        from demo.tokens import FallbackTokenBackend

        state.token_backend = FallbackTokenBackend.from_settings()
