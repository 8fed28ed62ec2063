"""What stands at the head of every answer: which journal it comes from, and how far its folds had come."""

from __future__ import annotations

from collections.abc import Callable

from trunkline.api.v1 import common_pb2

from . import wire


class ResponseHeaders:
    """The header as a message and as bytes, made anew when the revision has moved."""

    def __init__(self, journal_id: str, incarnation: int, revision: Callable[[], int]) -> None:
        self._journal_id = journal_id
        self._incarnation = incarnation
        self._revision = revision
        self._encoded = b""
        self._encoded_revision: int | None = None

    @property
    def revision(self) -> int:
        """That of the control stream's folds, now."""
        return max(0, self._revision())

    def message(self) -> common_pb2.ResponseHeader:
        """For answers that are made of messages."""
        return common_pb2.ResponseHeader(
            journal_id=self._journal_id, incarnation=self._incarnation, revision=self.revision
        )

    def encoded(self) -> bytes:
        """Field 1 of an answer, which is its first, tag included."""
        revision = self._revision()
        if self._encoded_revision != revision:
            self._encoded_revision = revision
            self._encoded = wire.header(self._journal_id, self._incarnation, max(0, revision))
        return self._encoded
