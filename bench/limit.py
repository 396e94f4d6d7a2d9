"""What one signature costs this machine, to check and to make: the rest of the physical limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from bench import jobs

CRYPTO_SECONDS = 0.4


class Seconds(NamedTuple):
    """What a piece of work takes by the clock, and of the processor."""

    wall: float
    cpu: float


def verification() -> Callable[[], None]:
    """One RSA-2048 verification of a signature over as much as a CI token holds."""
    message = os.urandom(1400)
    signed = jobs.KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())
    public = jobs.KEY.public_key()
    return lambda: public.verify(signed, message, padding.PKCS1v15(), hashes.SHA256())


def signature() -> Callable[[], bytes]:
    """One P-256 signature over as much as an access token holds."""
    key, message = ec.generate_private_key(ec.SECP256R1()), os.urandom(1600)
    return lambda: key.sign(message, ec.ECDSA(hashes.SHA256()))


def cost(work: Callable[[], object], seconds: float = CRYPTO_SECONDS) -> Seconds:
    """What *work* takes, again and again for *seconds*, and ten times at least."""
    done, spent, began, busy = 0, 0.0, time.perf_counter(), time.thread_time()
    while not done or spent < seconds:
        for _ in range(10):
            work()
        done += 10
        spent = time.perf_counter() - began
    return Seconds(spent / done, (time.thread_time() - busy) / done)
