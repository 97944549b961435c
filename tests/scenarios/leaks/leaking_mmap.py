# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: native|buffers: list
"""Maps memory for each picture and keeps all of them."""
import mmap
import time

PICTURE = 64 * 1024
buffers = []


def load_picture():
    buffer = mmap.mmap(-1, PICTURE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffer.write(b"x" * PICTURE)
    buffers.append(buffer)


print("ready", flush=True)
for _ in range(6000):
    load_picture()
    time.sleep(0.02)
time.sleep(3600)
