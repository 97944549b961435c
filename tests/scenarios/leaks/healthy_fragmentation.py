# SPDX-License-Identifier: MIT
# expect: none
"""Takes much, gives most of it back, and keeps every fiftieth piece for a while: its memory is full of holes."""
import time

kept = []
print("ready", flush=True)
round_number = 0
while True:
    round_number += 1
    pieces = []
    for step in range(100):
        pieces += [bytearray(100 + (step * 37 + number * 101) % 2900) for number in range(100)]
        time.sleep(0.01)
    kept.append(pieces[::50])
    del kept[:-3], pieces
    time.sleep(0.3)
