# SPDX-License-Identifier: MIT
# expect: none
"""Maps memory for each picture and gives it back."""
import mmap
import time

PICTURE = 1 << 20
print("ready", flush=True)
pictures = []
number = 0
while True:
    number += 1
    picture = mmap.mmap(-1, PICTURE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    picture.write(b"x" * PICTURE)
    pictures.append(picture)
    if len(pictures) > 5 + number % 11:
        for picture in pictures:
            picture.close()
        pictures = []
    time.sleep(0.03)
