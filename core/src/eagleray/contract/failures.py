"""Why an attempt ended badly, and rules by which a plugin tells its framework's errors apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """What is at fault decides what is tried: another node, a later time, or nothing but a word to the user."""

    OUT_OF_MEMORY = "out-of-memory"  # the same settings would need the same memory again
    BAD_NODE = "bad-node"  # a node's hardware, driver or disk; the job shall avoid it
    PREEMPTION = "preemption"  # the node was taken away; nobody's fault
    WORKER_LOST = "worker-lost"  # the process died without a word
    CLUSTER = "cluster"  # the workers could not be placed
    STORAGE = "storage"
    DATA = "data"
    ENVIRONMENT = "environment"
    PLUGIN = "plugin"  # the adapter or its framework raised; the same input would raise again
    USER = "user"  # the job's description asks for what cannot be


@dataclass(frozen=True)
class FailureRule:
    """What an adapter raises that means `kind`. The first rule of a plugin that fits wins.

    Attributes:
        error: class name of the exception; empty: any.
        pattern: regular expression that must be found in the message or the traceback; empty: any.
        hint: what the user should do about it.
    """

    kind: FailureKind
    error: str = ""
    pattern: str = ""
    hint: str = ""

    def fits(self, error: str, text: str) -> bool:
        if not (self.error or self.pattern):
            return False
        return (not self.error or self.error == error) and re.search(self.pattern, text) is not None
