"""Token buckets that add one fill after the other, and forget by looking at all keys."""

from __future__ import annotations


class TokenBucket:
    """See trunkline.core.token_bucket.TokenBucket."""

    def __init__(self, max_tokens: int, tokens_per_fill: int, fill_interval_ns: int, now_ns: int) -> None:
        self.max_tokens, self.per_fill, self.interval_ns = max_tokens, tokens_per_fill, fill_interval_ns
        self.tokens = max_tokens
        self.next_fill_ns = now_ns + fill_interval_ns

    def _fill(self, now_ns: int) -> None:
        while now_ns >= self.next_fill_ns:
            self.tokens = min(self.max_tokens, self.tokens + self.per_fill)
            self.next_fill_ns += self.interval_ns

    def take(self, now_ns: int) -> bool:
        """Take one."""
        self._fill(now_ns)
        if not self.tokens:
            return False
        self.tokens -= 1
        return True

    def next_ns(self, now_ns: int) -> int:
        """When there is one."""
        self._fill(now_ns)
        return now_ns if self.tokens else self.next_fill_ns


class KeyedBuckets:
    """See trunkline.core.token_bucket.KeyedBuckets."""

    def __init__(self, max_tokens: int, tokens_per_fill: int, fill_interval_ns: int, keys_max: int) -> None:
        self.settings = (max_tokens, tokens_per_fill, fill_interval_ns)
        self.keys_max = keys_max
        self.buckets: dict[bytes, TokenBucket] = {}
        self.asked: dict[bytes, int] = {}
        self.questions = 0

    def take(self, key: bytes, now_ns: int) -> bool:
        """Take one of a key."""
        self.questions += 1
        if key not in self.buckets and len(self.buckets) == self.keys_max:
            oldest = min(self.buckets, key=self.asked.__getitem__)
            del self.buckets[oldest]
        self.asked[key] = self.questions
        return self.buckets.setdefault(key, TokenBucket(*self.settings, now_ns)).take(now_ns)
