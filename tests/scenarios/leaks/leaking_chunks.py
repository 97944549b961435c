# SPDX-License-Identifier: MIT
# expect: memory-leak
# says: upload.chunks: list
"""Big chunks of bytes, which malloc keeps, in a list."""
import time


class Upload:
    def __init__(self):
        self.chunks = []

    def receive(self, number):
        self.chunks.append(b"%d" % number + bytes([number % 256]) * 15000)


upload = Upload()
print("ready", flush=True)
for step in range(13000):
    for number in range(2):
        upload.receive(step * 2 + number)
    time.sleep(0.01)
time.sleep(3600)
