"""Tokens while the secret is rotated: signed with the current one, accepted with the next and previous one too.

Django does the same for sessions with SECRET_KEY_FALLBACKS; simplejwt knows only one key, hence this class.
"""

from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenBackendExpiredToken
from rest_framework_simplejwt.settings import api_settings


class FallbackTokenBackend(TokenBackend):
    """simplejwt's backend, which tries each of SECRET_KEY_FALLBACKS where the current key does not fit."""

    fallbacks: list[TokenBackend]

    @classmethod
    def from_settings(cls) -> "FallbackTokenBackend":
        backend = cls(api_settings.ALGORITHM, api_settings.SIGNING_KEY, leeway=api_settings.LEEWAY)
        backend.fallbacks = [
            TokenBackend(api_settings.ALGORITHM, key, leeway=api_settings.LEEWAY)
            for key in settings.SECRET_KEY_FALLBACKS
        ]
        return backend

    def decode(self, token, verify=True):
        """The token's claims; raises TokenBackendError where no key fits, or the right one says no."""
        try:
            return super().decode(token, verify)
        except TokenBackendExpiredToken:
            # The signature was right: no other key could say better.
            raise
        except TokenBackendError as refusal:
            for backend in self.fallbacks:
                try:
                    return backend.decode(token, verify)
                except TokenBackendExpiredToken:
                    raise
                except TokenBackendError:
                    continue
            raise refusal
