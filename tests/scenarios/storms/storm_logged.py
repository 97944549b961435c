# SPDX-License-Identifier: MIT
# expect: exception-storm
# says: report ValueError
# Every message of a queue is broken, and each is logged with its traceback.
import io
import logging

logging.basicConfig(stream=io.StringIO())


def handle(message):
    try:
        return int(message)
    except ValueError:
        logging.exception("broken message")


print("ready")
n = 0
while True:
    handle("abc")
    n += 1
    if n % 1000 == 0:
        logging.getLogger().handlers[0].setStream(io.StringIO()) if hasattr(logging.StreamHandler, "setStream") else None
