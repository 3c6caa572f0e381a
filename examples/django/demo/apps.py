"""The demo app, as it is, and beside simplejwt, which it then teaches to accept the next and the previous secret."""

from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "demo"
    default = True


class WithSimpleJwtConfig(DemoConfig):
    default = False

    def ready(self) -> None:
        from rest_framework_simplejwt import state

        from demo.tokens import FallbackTokenBackend

        state.token_backend = FallbackTokenBackend.from_settings()
