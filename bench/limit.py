"""Measure what it costs this machine to verify a signature and to make one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

CRYPTO_SECONDS = 0.4


class Seconds(NamedTuple):
    """The time that a piece of work takes by the clock, and by the processor."""

    wall: float
    cpu: float


def verification() -> Callable[[], None]:
    """One RSA-2048 verification of a message as long as a CI token."""
    message = os.urandom(1400)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    signed, public = key.sign(message, padding.PKCS1v15(), hashes.SHA256()), key.public_key()
    return lambda: public.verify(signed, message, padding.PKCS1v15(), hashes.SHA256())


def signature() -> Callable[[], bytes]:
    """One P-256 signature of a message as long as an access token."""
    key, message = ec.generate_private_key(ec.SECP256R1()), os.urandom(1600)
    return lambda: key.sign(message, ec.ECDSA(hashes.SHA256()))


def cost(work: Callable[[], object], seconds: float = CRYPTO_SECONDS) -> Seconds:
    """The mean cost of *work*, repeated for *seconds*, and at least ten times."""
    done, spent, began, busy = 0, 0.0, time.perf_counter(), time.thread_time()
    while not done or spent < seconds:
        for _ in range(10):
            work()
        done += 10
        spent = time.perf_counter() - began
    return Seconds(spent / done, (time.thread_time() - busy) / done)
