"""Topics, topic filters, and the set of subscribers whose filters take a topic.

A topic is words separated by dots. In a filter `*` stands for any one word, and a final `>` for one or more.
"""

import cython
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t

from trunkline.core.topics cimport TOPIC_BYTES_MAX, TOPIC_WORDS_MAX, words_are_valid

BYTES_MAX = TOPIC_BYTES_MAX
WORDS_MAX = TOPIC_WORDS_MAX
CACHED_TOPICS_DEFAULT = 4096


cdef bint _is_valid(str text, bint wildcards) except -1:
    cdef Py_ssize_t size
    cdef const char* utf8
    try:
        utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return words_are_valid(<const uint8_t*>utf8, size, wildcards)


def topic_is_valid(str topic not None):
    """Whether `topic` is one: up to 256 bytes, 1 to 16 words without white space, invisible characters, '*' and '>'."""
    return _is_valid(topic, False)


def filter_is_valid(str filter not None):
    """Whether `filter` is a topic in which '*' may stand for a word and '>' for the last ones."""
    return _is_valid(filter, True)


cdef list _words(str text, bint wildcards):
    if not _is_valid(text, wildcards):
        raise ValueError(f"not a topic{' filter' if wildcards else ''}: {text!r}")
    return text.split(".")


def matches(str filter not None, str topic not None):
    """Whether the filter takes the topic. ValueError when one of them is not valid."""
    cdef list wanted = _words(filter, True)
    cdef list words = _words(topic, False)
    cdef Py_ssize_t i
    for i in range(len(wanted)):
        if i == len(words):
            return False
        if wanted[i] == ">":
            return True
        if wanted[i] != "*" and wanted[i] != words[i]:
            return False
    return len(wanted) == len(words)


@cython.final
cdef class _Node:
    """Filters that begin with the same words."""

    cdef dict children  # the next word, or "*", to its node
    cdef set ends       # ids of filters that end here
    cdef set rests      # ids of filters that go on with '>'

    def __cinit__(self):
        self.children = {}
        self.ends = set()
        self.rests = set()

    cdef bint is_empty(self) noexcept:
        return not self.children and not self.ends and not self.rests


@cython.final
cdef class FilterSet:
    """Many (id, filter) pairs, asked which ids take a topic.

    Filters lie in a trie of words, so that an answer costs what matches and not what is there. Answers are kept for the
    topics asked last, between `cached_topics` and twice as many, and forgotten at every change.
    """

    cdef _Node _root
    cdef dict _filters  # id to its filters
    cdef dict _young    # answers, of the present generation and of the one before
    cdef dict _old
    cdef Py_ssize_t _cached_topics

    def __cinit__(self, *, Py_ssize_t cached_topics=CACHED_TOPICS_DEFAULT):
        if cached_topics < 1:
            raise ValueError(f"cached_topics must be positive: {cached_topics}")
        self._root = _Node()
        self._filters = {}
        self._young = {}
        self._old = {}
        self._cached_topics = cached_topics

    def __len__(self):
        """How many ids there are."""
        return len(self._filters)

    def add(self, id: int, str filter not None):
        """Let `id` take what `filter` takes, besides what it takes already. ValueError when the filter is not valid."""
        cdef list words = _words(filter, True)
        cdef set own = self._filters.setdefault(id, set())
        cdef bint rest = words[-1] == ">"
        cdef _Node node = self._root
        if filter in own:
            return
        own.add(filter)
        if rest:
            words.pop()
        for word in words:
            child = node.children.get(word)
            if child is None:
                child = node.children[word] = _Node()
            node = <_Node>child
        (node.rests if rest else node.ends).add(id)
        self._forget_answers()

    def remove(self, id: int):
        """Take `id` out with all its filters. KeyError when it is not there."""
        for filter in self._filters.pop(id):
            self._cut(id, (<str>filter).split("."))
        self._forget_answers()

    def match(self, str topic not None):
        """The ids that take `topic`, ascending, each once. ValueError when the topic is not valid."""
        answer = self._young.get(topic)
        if answer is None:
            answer = self._old.get(topic)
            if answer is None:
                answer = self._asked(_words(topic, False))
            if len(self._young) >= self._cached_topics:
                self._old = self._young
                self._young = {}
            self._young[topic] = answer
        return answer

    cdef void _forget_answers(self):
        if self._young or self._old:
            self._young = {}
            self._old = {}

    cdef int _cut(self, id, list words) except -1:
        """Remove one filter and the nodes that only it needed."""
        cdef bint rest = words[-1] == ">"
        cdef list path = []
        cdef _Node node = self._root
        if rest:
            words.pop()
        for word in words:
            path.append((node, word))
            node = <_Node>node.children[word]
        (node.rests if rest else node.ends).discard(id)
        while path and node.is_empty():
            parent, word = path.pop()
            node = <_Node>parent
            del node.children[word]
        return 0

    cdef tuple _asked(self, list words):
        cdef set found = set()
        cdef list nodes = [self._root]
        cdef list next_nodes
        cdef _Node node
        for word in words:
            next_nodes = []
            for node in nodes:
                found |= node.rests
                child = node.children.get(word)
                if child is not None:
                    next_nodes.append(child)
                child = node.children.get("*")
                if child is not None:
                    next_nodes.append(child)
            nodes = next_nodes
        for node in nodes:
            found |= node.ends
        return tuple(sorted(found))
